"""What `explain` collects, against the network taken apart by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import focalnet
from command_line import run
from focalnet import explain as module
from focalnet.backbone import FocalNet
from focalnet.errors import MissingExtraError, UserError
from focalnet.explain import Explanation, explain
from focalnet.inputs.image import Preprocessing
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.modulation import FocalModulation
from focalnet.variants import FocalNetConfig, get_variant
from focalnet.weights.spec import ModelSpec

CONFIG = FocalNetConfig(
    embed_dim=8, depths=(1, 2, 1), focal_levels=(2,), patch_size=2, drop_path_rate=0.5, drop_rate=0.5
)
HOW = Preprocessing(input_size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def picture(width=70, height=45, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def classifier(config=CONFIG, num_classes=5):
    """A network whose modulations and classes are far from each other, so that a wrong answer shows."""
    torch.manual_seed(0)
    model = FocalNetClassifier(config, num_classes=num_classes)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return model


def normalized(explanation):
    pixels = torch.from_numpy(explanation.image).permute(2, 0, 1)
    return ((pixels - torch.tensor(HOW.mean)[:, None, None]) / torch.tensor(HOW.std)[:, None, None])[None]


def test_arrays():
    """Every array is what the layers give for the image that is shown."""
    model = classifier()
    found = explain(model, picture(), preprocessing=HOW)
    assert found.image.shape == (32, 48, 3)  # 70 x 45 -> 49 x 32 -> whole positions of 8 pixels
    assert 0 <= found.image.min() < 0.2
    assert 0.8 < found.image.max() <= 1

    inputs: dict[str, torch.Tensor] = {}
    model.eval()
    for name, layer in model.named_modules():
        if isinstance(layer, FocalModulation):
            layer.register_forward_pre_hook(lambda _, arguments, name=name: inputs.update({name: arguments[0]}))
    with torch.no_grad():
        logits = model(normalized(found))
    torch.testing.assert_close(torch.from_numpy(found.logits), logits[0])
    names = ["layers.0.blocks.0", "layers.1.blocks.1", "layers.2.blocks.0"]
    for stage, name in enumerate(names):
        layer = model.get_submodule(f"{name}.modulation")
        with torch.no_grad():
            _, parts = layer(inputs[f"{name}.modulation"], return_parts=True)
        assert found.modulators[stage].shape == (16 >> stage, 24 >> stage)
        expected = parts.modulator[0].square().sum(-1).sqrt()
        torch.testing.assert_close(torch.from_numpy(found.modulators[stage]), expected)
        for level, size in enumerate((3, 5)):
            weight = layer.focal_layers[level][0].weight.detach()
            assert found.kernels[stage][level].shape == (size, size)
            torch.testing.assert_close(torch.from_numpy(found.kernels[stage][level]), weight[:, 0].mean(0))
    assert found.gates.shape == (3, 4, 6)
    torch.testing.assert_close(torch.from_numpy(found.gates), parts.gates[0].permute(2, 0, 1))
    assert found.grad_cam is None
    assert found.target is None


@pytest.mark.parametrize("target", [None, 0, 3])
def test_grad_cam(target):
    """Against the definition: channels weighted by the mean gradient, summed, cut at zero, up-sampled."""
    model = classifier()
    found = explain(model, picture(), preprocessing=HOW, grad_cam=True, target=target)
    assert found.grad_cam.shape == found.image.shape[:2]
    likeliest = int(found.logits.argmax())
    assert found.target == (likeliest if target is None else target)
    model.eval()
    last = model.forward_stages(normalized(found))[-1].detach().requires_grad_()
    logit = model.head(model.norm(last).mean(dim=(1, 2)))[0, found.target]
    (gradient,) = torch.autograd.grad(logit, last)
    cam = torch.einsum("bhwc,bc->bhw", last, gradient.mean(dim=(1, 2))).relu()
    assert cam.max() > 0
    up = nn.functional.interpolate(cam[:, None], found.image.shape[:2], mode="bilinear")[0, 0]
    torch.testing.assert_close(torch.from_numpy(found.grad_cam), up.detach())


def test_grad_cam_depends_on_the_class():
    model = classifier()
    one, other = (explain(model, picture(), preprocessing=HOW, grad_cam=True, target=k).grad_cam for k in (1, 2))
    assert np.abs(one - other).max() > 0.1 * max(one.max(), other.max())


@pytest.mark.parametrize("grad_cam", [False, True])
def test_the_model_is_as_before(grad_cam):
    """Modes (also a mixed one), gradients, hooks, attributes and random numbers are untouched."""
    model = classifier().train()
    model.layers[0].eval()
    model.head.weight.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)

    def state():
        return [
            (name, part.training, len(part._forward_hooks), len(part._backward_hooks), sorted(vars(part)))
            for name, part in model.named_modules()
        ]

    before, weights, generator = state(), {n: w.clone() for n, w in model.state_dict().items()}, torch.get_rng_state()
    explain(model, picture(), preprocessing=HOW, grad_cam=grad_cam)
    assert state() == before
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert all((parameter.grad == 1).all() for parameter in model.parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_the_model_is_as_before_after_an_error():
    model = classifier().train()
    with pytest.raises(UserError, match="no class 5; the model has the classes 0 to 4"):
        explain(model, picture(), preprocessing=HOW, grad_cam=True, target=5)
    assert all(part.training for part in model.modules())


def test_frozen_model():
    """Grad-CAM needs no parameter with gradients, and works inside `no_grad`."""
    model = classifier().requires_grad_(False)
    free = explain(classifier(), picture(), preprocessing=HOW, grad_cam=True)
    with torch.no_grad():
        frozen = explain(model, picture(), preprocessing=HOW, grad_cam=True)
    np.testing.assert_array_equal(frozen.grad_cam, free.grad_cam)


def test_backbone():
    torch.manual_seed(0)
    found = explain(FocalNet(CONFIG, out_indices=(0, 1, 2)), picture(), preprocessing=HOW)
    assert found.logits is None
    assert found.caption == ""
    assert [modulator.shape for modulator in found.modulators] == [(16, 24), (8, 12), (4, 6)]
    with pytest.raises(UserError, match="Grad-CAM explains the classes of a classifier, no FocalNet"):
        explain(FocalNet(CONFIG, out_indices=(0,)), picture(), preprocessing=HOW, grad_cam=True)


def test_inside_another_module():
    model = classifier()
    inner = explain(model, picture(), preprocessing=HOW)
    outer = explain(nn.ModuleDict({"net": model}), picture(), preprocessing=HOW)
    np.testing.assert_array_equal(outer.gates, inner.gates)


def test_nothing_to_explain():
    with pytest.raises(UserError, match="Linear holds no FocalNet"):
        explain(nn.Linear(2, 2), picture())


def test_isotropic_net():
    config = get_variant("focalnet_tiny_iso").replace(embed_dim=8, depths=(2,))
    found = explain(classifier(config), picture(), preprocessing=HOW, grad_cam=True)
    assert found.gates.shape == (4, 2, 3)
    assert len(found.modulators) == 1
    assert [kernel.shape for kernel in found.kernels[0]] == [(3, 3), (5, 5), (7, 7)]


def test_half_precision():
    exact = explain(classifier(), picture(), preprocessing=HOW, grad_cam=True)
    found = explain(classifier().bfloat16(), picture(), preprocessing=HOW, grad_cam=True)
    assert found.gates.dtype == found.grad_cam.dtype == np.float32
    np.testing.assert_allclose(found.modulators[0], exact.modulators[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("size", "expected"), [((45, 70), (48, 32)), ((32, 32), (32, 32)), ((3, 900), (256, 32))])
def test_shape_of_the_picture(size, expected):
    """The shorter side becomes the input size, the proportions stay; beyond 8 to 1 the middle is taken."""
    assert explain(classifier(), picture(*size), preprocessing=HOW).image.shape == (*expected, 3)


def test_preprocessing_and_classes_of_the_spec():
    model = classifier(num_classes=3)
    model.spec = ModelSpec(
        variant="minifocal_32", architecture=CONFIG, num_classes=3, classes=("cat", "dog", "cow"), preprocessing=HOW
    )
    found = explain(model, picture(), grad_cam=True, target=2)
    np.testing.assert_array_equal(found.logits, explain(model, picture(), preprocessing=HOW).logits)
    best = int(found.logits.argmax())
    share = np.exp(found.logits[best]) / np.exp(found.logits).sum()
    assert found.caption == f"prediction: {model.spec.classes[best]} ({share:.1%}), Grad-CAM for: cow"


def test_grey_and_transparent_pictures():
    for mode in ("L", "RGBA", "P"):
        assert explain(classifier(), picture().convert(mode), preprocessing=HOW).image.shape == (32, 48, 3)


def test_files(tmp_path):
    found = explain(classifier(), picture(), preprocessing=HOW, grad_cam=True)
    found.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 500
    found.save_npz(tmp_path / "a.arrays")
    with np.load(tmp_path / "a.arrays") as arrays:
        kernels = {f"kernel_{stage}_{level}" for stage in (1, 2, 3) for level in (1, 2)}
        modulators = {"modulator_1", "modulator_2", "modulator_3"}
        assert set(arrays) == {"image", "gates", "grad_cam", "logits", *modulators, *kernels}
        np.testing.assert_array_equal(arrays["kernel_2_1"], found.kernels[1][0])
        np.testing.assert_array_equal(arrays["modulator_3"], found.modulators[2])
    Explanation(found.image, found.kernels, found.gates, found.modulators).save_npz(tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz") as arrays:
        assert not {"grad_cam", "logits"} & set(arrays)


def test_without_captum(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingExtraError, match=r"\[train\]"):
        explain(classifier(), picture(), preprocessing=HOW, grad_cam=True)


def test_capture_is_here_too():
    assert module.capture is not None


def test_sequences_are_captured_and_not_drawn():
    with pytest.raises(UserError, match="this FocalNet takes sequences; see `capture`"):
        explain(classifier(CONFIG.replace(spatial_dims=1)), picture())


def test_a_class_may_be_told_by_its_name(capsys, tmp_path):
    model = focalnet.create_model("minifocal_32", classes=["1", "0", "cat"])
    for target, number in (("cat", 2), ("1", 0), ("2", 2), (1, 1)):
        assert explain(model, picture(), grad_cam=True, target=target).target == number
    with pytest.raises(UserError, match="There is no class 'cut'; did you mean 'cat'"):
        explain(model, picture(), grad_cam=True, target="cut")
    bare = focalnet.create_model("minifocal_32", num_classes=3)
    with pytest.raises(UserError, match="have no names; give a number in the place of 'cat'"):
        explain(bare, picture(), grad_cam=True, target="cat")
    focalnet.save_pretrained(model, tmp_path / "model")
    picture().save(tmp_path / "a.png")
    out = tmp_path / "new" / "folder" / "x.png"
    arguments = ("explain", tmp_path / "model", tmp_path / "a.png", "--out", out, "--grad-cam", "--target", "cat")
    assert run(capsys, *arguments)[:2] == (0, f"{out}\n{out.with_suffix('.npz')}\n")
    assert out.exists()
