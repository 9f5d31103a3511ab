"""The same numbers as timm and transformers, weights going through files in every layout."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from focalnet.models.create import create_backbone, create_model, load_weights
from focalnet.variants import VARIANTS, FocalNetConfig, get_variant
from focalnet.weights.files import read_state_dict, write_state_dict
from focalnet.weights.layouts import LAYOUTS, convert_state_dict

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

OFFICIAL = [f"focalnet_{size}_{field}" for size in ("tiny", "small", "base") for field in ("srf", "lrf")]
LARGE = [f"focalnet_{size}_{levels}" for size in ("large", "xlarge", "huge") for levels in ("fl3", "fl4")]
ISOTROPIC = [f"focalnet_{size}_iso" for size in ("tiny", "small", "base")]
TOLERANCE = 1e-5


def images(height: int, width: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(7))


def perturb(model):
    """Random weights under which every part of the network is felt: initial ones leave the modulation near zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.2 if parameter.ndim == 1 else 0.7 / parameter[0].numel() ** 0.5
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def difference(one: Tensor, other: Tensor) -> float:
    """Largest difference over the largest value."""
    assert one.shape == other.shape
    return ((one - other).abs().max() / other.abs().max()).item()


def reduced(name: str) -> dict:
    """Overrides that make a variant small without touching what makes it that variant."""
    stages = len(get_variant(name).depths)
    return {"embed_dim": 16, "depths": (1, 1, 2, 1)[-stages:] if stages > 1 else (3,)}


def timm_model(config: FocalNetConfig, num_classes: int, **options) -> nn.Module:
    return timm.models.focalnet.FocalNet(
        num_classes=num_classes, embed_dim=config.embed_dim, depths=config.depths, focal_levels=config.focal_levels,
        focal_windows=config.focal_windows, use_overlap_down=config.use_conv_embed, use_post_norm=config.use_postln,
        use_post_norm_in_modulation=config.use_postln_in_modulation, layerscale_value=config.layerscale_value,
        normalize_modulator=config.normalize_modulator, drop_path_rate=0.0, **options,
    )  # fmt: skip


def transformers_model(config: FocalNetConfig, num_classes: int) -> nn.Module:
    return transformers.FocalNetForImageClassification(
        transformers.FocalNetConfig(
            num_labels=num_classes, embed_dim=config.embed_dim, depths=list(config.depths), drop_path_rate=0.0,
            focal_levels=list(config.focal_levels), focal_windows=list(config.focal_windows),
            hidden_sizes=list(config.channels), patch_size=config.patch_size, use_conv_embed=config.use_conv_embed,
            use_layerscale=config.layerscale_value is not None, use_post_layernorm=config.use_postln,
            use_post_layernorm_in_modulation=config.use_postln_in_modulation,
            normalize_modulator=config.normalize_modulator,
        )
    )  # fmt: skip


def compare(model, libraries, sizes) -> None:
    """Logits of our model and of theirs with the same weights, on each (height, width)."""
    for library, theirs in libraries.items():
        weights = convert_state_dict(model.state_dict(), to=library, use_postln=model.config.use_postln)
        theirs.load_state_dict(weights)
        theirs.eval()
        for size in sizes[library]:
            with torch.inference_mode():
                expected = theirs(images(*size, batch=1))
                assert difference(model(images(*size, batch=1)), getattr(expected, "logits", expected)) <= TOLERANCE


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if "tiny" in name else pytest.mark.slow) for name in OFFICIAL]
)
def test_logits_of_the_full_variants(name):
    model = perturb(create_model(name))
    libraries = {"timm": timm.create_model(name), "transformers": transformers_model(model.config, 1000)}
    compare(model, libraries, {"timm": [(224, 224), (97, 131)], "transformers": [(224, 224)]})


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", LARGE)
def test_logits_of_the_full_large_variants(name):
    # timm builds large_fl4 without dividing the modulator
    model = perturb(create_model(name, normalize_modulator=False, num_classes=1000))
    libraries = {
        "timm": timm.create_model(name, num_classes=1000),
        "transformers": transformers_model(model.config, 1000),
    }
    compare(model, libraries, {"timm": [(224, 224), (97, 131)], "transformers": [(224, 224)]})


@pytest.mark.parametrize(
    "name", [*OFFICIAL, *LARGE, *(name for name in VARIANTS if name.endswith(("overlap", "deeper")))]
)
def test_logits_of_reduced_variants(name):
    model = perturb(create_model(name, num_classes=11, **reduced(name)))
    libraries = {"timm": timm_model(model.config, 11), "transformers": transformers_model(model.config, 11)}
    # overlapped kernels see the padding that transformers adds, so sizes are odd only for timm
    compare(model, libraries, {"timm": [(224, 224), (97, 131), (67, 90)], "transformers": [(224, 224)]})


@pytest.mark.parametrize("name", [*ISOTROPIC, "minifocal_32"])
def test_logits_of_variants_that_only_transformers_can_express(name):
    model = perturb(create_model(name, num_classes=11, **(reduced(name) if name in ISOTROPIC else {})))
    compare(model, {"transformers": transformers_model(model.config, 11)}, {"transformers": [(64, 96)]})


@pytest.mark.parametrize("name", ["focalnet_tiny_lrf", "focalnet_large_fl4", "focalnet_huge_fl3"])
def test_logits_through_files_of_every_layout_and_back(name, tmp_path):
    model = perturb(create_model(name, num_classes=11, **reduced(name)))
    config, x = model.config, images(64, 97)
    theirs = {"timm": timm_model(config, 11).eval(), "transformers": transformers_model(config, 11).eval()}
    with torch.inference_mode():
        expected = model(x)
    suffixes = (".pth", ".bin", ".safetensors")
    write_state_dict(tmp_path / "official.pth", model.state_dict(), wrapper="model")
    for layout, suffix in itertools.product(LAYOUTS, suffixes):
        path = tmp_path / f"{layout}{suffix}"
        weights = convert_state_dict(
            read_state_dict(tmp_path / "official.pth"), to=layout, use_postln=config.use_postln
        )
        write_state_dict(path, weights)
        if layout in theirs:
            theirs[layout].load_state_dict(read_state_dict(path))
            with torch.inference_mode():
                out = theirs[layout](x if layout == "timm" else x[..., :96])
                ours = expected if layout == "timm" else model(x[..., :96])
            assert difference(getattr(out, "logits", out), ours) <= TOLERANCE
        again = load_weights(create_model(name, num_classes=11, **reduced(name)).eval(), path)
        with torch.inference_mode():
            assert torch.equal(again(x), expected)


@pytest.mark.parametrize("name", ["focalnet_tiny_lrf", "focalnet_large_fl4", "focalnet_huge_fl4"])
def test_gradients(name):
    model = perturb(create_model(name, num_classes=11, **reduced(name)))
    theirs = timm_model(model.config, 11).eval()
    theirs.load_state_dict(convert_state_dict(model.state_dict(), to="timm", use_postln=model.config.use_postln))
    x, labels = images(67, 90), torch.tensor([3, 8])
    ours_x, theirs_x = (x.clone().requires_grad_() for _ in range(2))
    nn.functional.cross_entropy(model(ours_x), labels).backward()
    nn.functional.cross_entropy(theirs(theirs_x), labels).backward()
    gradients = convert_state_dict(
        {key: parameter.grad for key, parameter in model.named_parameters()},
        to="timm", use_postln=model.config.use_postln,
    )  # fmt: skip
    expected = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    assert set(gradients) == set(expected)
    assert max(difference(gradients[key], expected[key]) for key in expected) <= 5e-5
    assert difference(ours_x.grad, theirs_x.grad) <= 5e-5


@pytest.mark.parametrize("size", [(64, 96), (61, 79), (33, 50)])
@pytest.mark.parametrize("name", ["focalnet_tiny_lrf", "focalnet_large_fl4"])
def test_dense_maps_before_the_downsample_equal_those_of_transformers(name, size):
    """transformers pads odd maps as our dense use does; its backbone class returns other maps: this goes below it."""
    backbone = perturb(create_backbone(name, **reduced(name)))
    theirs = transformers_model(backbone.config, 1).focalnet
    weights = {key: value for key, value in backbone.state_dict().items() if not key.startswith("norm")}
    converted = convert_state_dict(weights, to="transformers")
    result = theirs.load_state_dict(
        {key.removeprefix("focalnet."): value for key, value in converted.items()}, strict=False
    )
    assert result.missing_keys == ["layernorm.weight", "layernorm.bias"]
    assert not result.unexpected_keys
    with torch.inference_mode():
        maps = backbone.forward_stages(images(*size))
        hidden, grid = theirs.eval().embeddings(images(*size))
        for ours, stage in zip(maps, theirs.encoder.stages, strict=True):
            hidden, before, dimensions = stage(hidden, grid)
            assert ours.shape[1:3] == tuple(grid)
            assert difference(ours.flatten(1, 2), before) <= TOLERANCE
            grid = dimensions[-2:]


def test_maps_of_timm_with_our_norms():
    name = "focalnet_tiny_srf"
    model = perturb(create_model(name))
    theirs = timm.create_model(name, features_only=True).eval()
    weights = convert_state_dict(model.state_dict(), to="timm")
    flat = {key.replace("layers.", "layers_", 1): value for key, value in weights.items()}
    theirs.load_state_dict({key: flat[key] for key in theirs.state_dict()})
    backbone = create_backbone(name)
    own = {key: value for key, value in model.state_dict().items() if not key.startswith(("norm.", "head."))}
    assert not backbone.load_state_dict(own, strict=False).unexpected_keys
    for index in range(4):
        perturb(getattr(backbone, f"norm{index}"))
    with torch.inference_mode():
        for index, (ours, raw) in enumerate(zip(backbone.eval()(images(96, 64)), theirs(images(96, 64)), strict=True)):
            normed = getattr(backbone, f"norm{index}")(raw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            assert difference(ours, normed) <= TOLERANCE


def test_grown_kernels_leave_every_map_of_a_detector_unchanged(tmp_path):
    name, small = "focalnet_tiny_lrf", reduced("focalnet_tiny_lrf")
    write_state_dict(tmp_path / "w.pth", perturb(create_model(name, **small)).state_dict(), wrapper="model")
    plain = create_backbone(name, weights=tmp_path / "w.pth", **small)
    grown = create_backbone(name, weights=tmp_path / "w.pth", focal_windows=(9, 9, 9, 9), **small)
    assert grown.layers[0].blocks[0].modulation.focal_layers[2][0].kernel_size == (13, 13)
    with torch.inference_mode():
        for ours, expected in zip(grown(images(61, 90)), plain(images(61, 90)), strict=True):
            assert difference(ours, expected) <= 1e-6


def test_a_new_level_is_no_identity(tmp_path):
    name, small = "focalnet_tiny_srf", reduced("focalnet_tiny_srf")
    write_state_dict(tmp_path / "w.pth", perturb(create_model(name, **small)).state_dict(), wrapper="model")
    srf = create_backbone(name, weights=tmp_path / "w.pth", **small)
    lrf = create_backbone("focalnet_tiny_lrf", weights=tmp_path / "w.pth", **small)
    assert lrf.config.focal_levels == (3, 3, 3, 3)
    with torch.inference_mode():
        changes = [
            difference(ours, expected) for ours, expected in zip(lrf(images(64, 64)), srf(images(64, 64)), strict=True)
        ]
    assert min(changes) > 1e-3  # the global context is pooled from the new level
