"""The backbone on sequences and volumes: shapes, padding, gradients, names, and what images have besides."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from focalnet.backbone import FocalNet, FocalNetBase, PatchEmbed
from focalnet.errors import UserError
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.modulation import capture
from focalnet.variants import FocalNetConfig
from focalnet.weights.adapt import adapt_state_dict
from focalnet.weights.architecture import infer_architecture, infer_variant

SEQUENCES = FocalNetConfig(embed_dim=8, depths=(1, 2), focal_levels=(2,), spatial_dims=1, in_channels=2)
VOLUMES = SEQUENCES.replace(spatial_dims=3, patch_size=2)
OVERLAPPED = {"use_conv_embed": True, "patch_size": 4, "use_postln": True, "layerscale_value": 1e-4}
CONFIGS = [
    pytest.param(SEQUENCES, id="1d"),
    pytest.param(VOLUMES, id="3d"),
    pytest.param(SEQUENCES.replace(**OVERLAPPED), id="1d-overlapped"),
    pytest.param(VOLUMES.replace(**OVERLAPPED), id="3d-overlapped"),
]
SIZES = {1: [(64,), (37,), (1,)], 3: [(8, 8, 8), (5, 9, 6), (1, 2, 3)]}


def filled(model: FocalNetBase) -> FocalNetBase:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.mark.parametrize("config", CONFIGS)
def test_the_pyramid_pads_each_axis_to_the_ceiling(config):
    model = FocalNet(config, out_indices=(0, 1)).eval()
    for sizes in SIZES[config.spatial_dims]:
        with torch.no_grad():
            maps = model(torch.randn(2, 2, *sizes))
        for feature, channels, stride in zip(maps, model.channels, model.strides, strict=True):
            assert feature.shape == (2, channels, *(math.ceil(size / stride) for size in sizes))
            assert feature.movedim(1, -1).is_contiguous()
            torch.testing.assert_close(feature.mean(1), torch.zeros_like(feature[:, 0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_padding_is_zeros_at_the_end_of_each_axis(axes):
    embed = PatchEmbed(3, 8, stride=4, kernel_size=4, padding=0, pad_odd=True, spatial_dims=axes)
    x = torch.randn(1, *(5, 6, 8)[:axes], 3)
    ends = [0, 0, *(0, 0, 0, 2, 0, 3)[6 - 2 * axes :]]
    torch.testing.assert_close(embed(x), embed(F.pad(x, ends)))
    if axes == 1:
        patches = F.pad(x, ends).unflatten(1, (-1, 4))  # (B, T / 4, 4, C)
        expected = embed.norm(torch.einsum("btkc,ock->bto", patches, embed.proj.weight) + embed.proj.bias)
        torch.testing.assert_close(embed(x), expected)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_classifier_floors_and_learns(config):
    model = FocalNetClassifier(config, num_classes=5).double()
    sizes = SIZES[config.spatial_dims][0]
    x = torch.randn(3, 2, *sizes, dtype=torch.float64, requires_grad=True)
    tokens = model.norm(model.forward_stages(x)[-1])
    y = model(x)
    torch.testing.assert_close(y, model.head(tokens.flatten(1, -2).mean(1)))
    y.square().sum().backward()
    assert x.grad is not None
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    if not config.use_conv_embed:  # the rest of each axis is dropped
        longer = F.pad(x.detach(), (0, 1) * config.spatial_dims, value=7.0)
        torch.testing.assert_close(model(longer), y)


@pytest.mark.parametrize("axes", [1, 2])
def test_an_axis_of_one_adds_nothing(axes):
    """A sequence is an image of one row, an image a volume of one layer: the centres of the kernels act alone."""
    small = SEQUENCES.replace(spatial_dims=axes)
    large = small.replace(spatial_dims=small.spatial_dims + 1)
    one, other = filled(FocalNet(small, out_indices=(0, 1))), filled(FocalNet(large, out_indices=(0, 1)))
    state = one.state_dict()
    for name, target in other.state_dict().items():
        if state[name].ndim == target.ndim:
            continue
        kernel = torch.zeros_like(target)
        place = 0 if "proj" in name else (target.shape[2] - 1) // 2  # a patch begins at its first row
        kernel[:, :, place] = state[name]
        state[name] = kernel
    other.load_state_dict(state)
    sizes = (16, 24)[: small.spatial_dims]
    x = torch.randn(2, 2, *sizes)
    with torch.no_grad():
        for a, b in zip(one(x), other(x.unsqueeze(2)), strict=True):
            torch.testing.assert_close(b.squeeze(2), a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_keys_are_those_of_images(config):
    image = FocalNetClassifier(config.replace(spatial_dims=2)).state_dict()
    state = FocalNetClassifier(config).state_dict()
    assert list(state) == list(image)
    for name, tensor in image.items():
        kernel = tensor.shape[2:]
        assert state[name].shape == (*tensor.shape[:2], *kernel[:1] * config.spatial_dims) if kernel else tensor.shape


@pytest.mark.parametrize("config", CONFIGS)
def test_capture_shows_every_layer(config):
    model = filled(FocalNetClassifier(config, num_classes=3))
    sizes = SIZES[config.spatial_dims][0]
    with torch.no_grad(), capture(model) as parts:
        model(torch.randn(1, 2, *sizes))
    strides = [config.strides[0], config.strides[1], config.strides[1]]
    assert [tuple(part.gates.shape) for part in parts.values()] == [
        (1, *(size // stride for size in sizes), 3) for stride in strides
    ]


@pytest.mark.parametrize("recompute", ["context", "block"])
@pytest.mark.parametrize("config", CONFIGS)
def test_recomputation_gives_the_same_gradients(config, recompute):
    model = FocalNetClassifier(config.replace(drop_rate=0.2, drop_path_rate=0.4), num_classes=3)
    x = torch.randn(2, 2, *SIZES[config.spatial_dims][0])

    def gradients():
        torch.manual_seed(3)
        return torch.autograd.grad(model(x).square().sum(), list(model.parameters()))

    expected = gradients()
    model.set_recompute(recompute)
    torch.testing.assert_close(gradients(), expected)


@pytest.mark.parametrize("config", CONFIGS[:2])
def test_low_precision_and_the_meta_device(config):
    model = filled(FocalNetClassifier(config, num_classes=3))
    x = torch.randn(1, 2, *SIZES[config.spatial_dims][0])
    with torch.no_grad():
        expected = model(x)
        half = model.bfloat16()(x.bfloat16())
    assert (half.float() - expected).abs().max() <= 0.1 * expected.abs().max()
    with torch.device("meta"):
        assert FocalNet(config, out_indices=(1,))(torch.empty(x.shape))[0].shape[1] == 16


@pytest.mark.parametrize("config", CONFIGS[:2])
def test_exports_with_dynamic_sizes(config):
    model = filled(FocalNet(config, out_indices=(0, 1)))
    first, second = [(64,), (37,)] if config.spatial_dims == 1 else [(8, 8, 12), (5, 9, 6)]
    dynamic = {axis: torch.export.Dim.DYNAMIC for axis in range(len(first) + 2) if axis != 1}
    program = torch.export.export(model, (torch.randn(2, 2, *first),), dynamic_shapes=(dynamic,))
    x = torch.randn(3, 2, *second)
    for ours, expected in zip(program.module()(x), model(x), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_architecture_is_read_off_the_shapes(config):
    state = FocalNetClassifier(config.replace(focal_windows=(3, 5))).state_dict()
    assert infer_architecture(state) == config.replace(focal_windows=(3, 5), use_postln=False)
    assert infer_variant(state) is None


@pytest.mark.parametrize("there_here", [(3, 7), (7, 3), (3, 4), (4, 7), (4, 9)])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_kernels_grow_on_each_axis(axes, there_here, caplog):
    there, here = there_here
    config = SEQUENCES.replace(spatial_dims=axes, focal_levels=1, depths=(1, 1), patch_size=2)
    old = filled(FocalNet(config.replace(focal_windows=there), out_indices=(0, 1)))
    new = filled(FocalNet(config.replace(focal_windows=here), out_indices=(0, 1)))
    with caplog.at_level("INFO", "focalnet.weights.adapt"):
        new.load_state_dict(adapt_state_dict(old.state_dict(), new))
    assert f"2 of {there} -> {here}" in caplog.text
    x = torch.randn(1, 2, *(8, 12, 8)[:axes])
    if here > there:
        with torch.no_grad():
            for ours, expected in zip(new(x), old(x), strict=True):
                torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_weights_of_another_number_of_axes_are_refused():
    image = FocalNetClassifier(SEQUENCES.replace(spatial_dims=2)).state_dict()
    with pytest.raises(UserError, match="of another shape"):
        adapt_state_dict(image, FocalNetClassifier(SEQUENCES))


def test_configurations_from_before_have_images():
    fields = json.loads(SEQUENCES.to_json())
    assert FocalNetConfig.from_dict(fields) == SEQUENCES
    del fields["spatial_dims"]
    assert FocalNetConfig.from_dict(fields) == SEQUENCES.replace(spatial_dims=2)
    with pytest.raises(UserError, match="spatial_dims=4"):
        SEQUENCES.replace(spatial_dims=4)


def test_inputs_of_another_kind():
    sequences, volumes = FocalNetClassifier(SEQUENCES), FocalNetClassifier(VOLUMES)
    with pytest.raises(UserError, match=r"sequences of shape \(B, 2, T\), got \(1, 2, 8, 8\)"):
        sequences(torch.zeros(1, 2, 8, 8))
    with pytest.raises(UserError, match=r"volumes of shape \(B, 2, D, H, W\), got \(1, 3, 8, 8, 8\)"):
        volumes(torch.zeros(1, 3, 8, 8, 8))
    with pytest.raises(UserError, match="sequences of 7 samples are too small: this model needs 8 or more"):
        sequences(torch.zeros(1, 2, 7))
    with pytest.raises(UserError, match="volumes of 8x3x8 voxels are too small: this model needs 4 or more"):
        volumes(torch.zeros(1, 2, 8, 3, 8))
