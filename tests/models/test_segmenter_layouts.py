import dataclasses
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from focalnet.errors import UserError
from focalnet.models.mask2former.layouts import LAYOUTS as MASK2FORMER
from focalnet.models.mask2former.model import Mask2Former
from focalnet.models.registry import find_layout
from focalnet.models.upernet.layouts import LAYOUTS as UPERNET
from focalnet.models.upernet.model import UperNet
from focalnet.variants import FocalNetConfig
from focalnet.weights.architecture import infer_architecture

FIXTURES = Path(__file__).parents[1] / "fixtures" / "universal"
MAKE = runpy.run_path(str(FIXTURES / "make.py"))
MODELS = {"mmseg": UperNet, "facebookresearch": Mask2Former}
SEGMENTERS = (*UPERNET, *MASK2FORMER)
LAYOUTS = {layout.name: layout for layout in SEGMENTERS if layout.name != "focalnet"}


def reference(name: str) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    arrays = dict(np.load(FIXTURES / f"{name}.npz"))
    shapes = json.loads(str(arrays.pop("shapes")))
    return {name: MAKE["draw"](name, tuple(shape)) for name, shape in shapes.items()}, arrays


def loaded(name: str) -> torch.nn.Module:
    """The network that the file itself tells, with the weights of the file."""
    weights, _ = reference(name)
    layout = find_layout(weights)
    assert layout is LAYOUTS[name]
    ours = layout.read(weights)
    facts = layout.facts(ours)
    trunk = {key.removeprefix(layout.backbone_prefix): value for key, value in ours.items()}
    trunk = {key: value for key, value in trunk.items() if not key.startswith("net.")}
    architecture = infer_architecture(trunk).replace(**facts.architecture)
    options = MODELS[name].Options(**facts.head_options)
    model = MODELS[name](architecture, num_classes=facts.num_classes, options=options)
    model.load_state_dict(ours, strict=True)
    return model.eval()


def raw(weights: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in weights.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_file_there_and_back_is_the_same_bytes(name):
    weights, _ = reference(name)
    layout = LAYOUTS[name]
    back = layout.write(layout.read(weights))
    assert list(back) == list(weights)
    assert {key: value.shape for key, value in back.items()} == {key: value.shape for key, value in weights.items()}
    assert raw(back) == raw(weights)
    model = loaded(name)
    assert raw(layout.write(model.state_dict())) == raw(weights)


@pytest.mark.parametrize("name", MODELS)
def test_our_own_names_are_recognised(name):
    model = loaded(name)
    layout = find_layout(model.state_dict())
    assert layout is not None
    assert (layout.name, layout.head) == ("focalnet", LAYOUTS[name].head)
    assert layout.facts(model.state_dict()).head_options == LAYOUTS[name].facts(model.state_dict()).head_options
    assert raw(layout.write(layout.read(model.state_dict()))) == raw(model.state_dict())


def test_upernet_has_the_logits_of_mmseg():
    _, expected = reference("mmseg")
    assert expected["decode_head"].std() > 0.5
    with torch.no_grad():
        outputs = loaded("mmseg").double()(MAKE["pictures"]().double())
    aux_logits = torch.nn.functional.interpolate(outputs.aux_logits, size=(64, 96), mode="bilinear")
    for ours, theirs in ((outputs.logits, "decode_head"), (aux_logits, "auxiliary_head")):
        # float64, so that every processor gives the same: the float32 of the reference is itself off by 1.34e-5
        error = np.abs(ours[:, :, ::3, ::3].numpy() - expected[theirs]).max()
        assert error < 1e-5 * np.abs(expected[theirs]).max()


def test_upernet_has_the_losses_of_mmseg():
    _, expected = reference("mmseg")
    model = loaded("mmseg")
    target = torch.randint(0, 5, (2, 64, 96), generator=torch.Generator().manual_seed(3))
    target[0, :, :40] = 255
    losses = model.loss(MAKE["pictures"](), target)
    assert losses["loss_main"].item() == pytest.approx(float(expected["loss_decode_head"]), rel=1e-5)
    assert losses["loss_aux"].item() == pytest.approx(float(expected["loss_auxiliary_head"]), rel=1e-5)
    model.options = dataclasses.replace(model.options, average_ignored=False)
    share = (target != 255).float().mean().item()
    counted = model.loss(MAKE["pictures"](), target)["loss_main"].item()
    assert counted * share == pytest.approx(losses["loss_main"].item())


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_mask2former_has_the_logits_of_facebookresearch(dtype, bound):
    """In float64 as recorded. In float32 rounding moves positions that attention leaves out, where a mask is near 0."""
    _, expected = reference("facebookresearch")
    masks = expected["mask_logits"][0].reshape(12, -1)
    assert np.triu(np.corrcoef(masks), 1).max() < 0.9999  # queries that are no copies of each other
    with torch.no_grad():
        outputs = loaded("facebookresearch").to(dtype)(MAKE["pictures"]().to(dtype))
    for key in ("class_logits", "mask_logits"):
        assert np.abs(getattr(outputs, key).numpy() - expected[key]).max() < bound * np.abs(expected[key]).max()


def test_facts_come_from_shapes():
    small = FocalNetConfig(embed_dim=8, depths=(1, 1, 1, 1), focal_levels=2)
    options = {
        "num_queries": 7, "hidden_dim": 32, "ffn_dim": 24, "encoder_ffn_dim": 16, "encoder_layers": 3,
        "decoder_layers": 5, "heads": 4,
    }  # fmt: skip
    facts = LAYOUTS["facebookresearch"].facts(
        Mask2Former(small, num_classes=9, options=Mask2Former.Options(**options)).state_dict()
    )
    assert (facts.num_classes, facts.head_options, facts.architecture) == (9, options, {})
    narrow = UperNet.Options(channels=24, aux_channels=8)
    facts = LAYOUTS["mmseg"].facts(UperNet(small, num_classes=6, options=narrow).state_dict())
    assert (facts.num_classes, facts.head_options) == (6, {"channels": 24, "aux_channels": 8})
    assert facts.architecture == {}
    overlapped = small.replace(use_conv_embed=True, focal_windows=9)
    for name, padding in (("mmseg", {"stem_padding": 3}), ("focalnet", {"stem_padding": 3})):
        layout = next(layout for layout in SEGMENTERS if (layout.name, layout.head) == (name, "upernet"))
        assert layout.facts(UperNet(overlapped, num_classes=6).state_dict()).architecture == padding
    kept = UperNet(overlapped.replace(focal_windows=3), num_classes=6).state_dict()
    assert LAYOUTS["mmseg"].facts(kept).architecture == {"stem_padding": 3}
    assert next(layout for layout in SEGMENTERS if layout.matches(kept)).facts(kept).architecture == {}


def test_our_tensors_share_no_memory():
    """Or safetensors would refuse to write them."""
    ours = LAYOUTS["facebookresearch"].read(reference("facebookresearch")[0])
    assert len({tensor.untyped_storage().data_ptr() for tensor in ours.values()}) == len(ours)


@pytest.mark.parametrize(("name", "lost"), [("mmseg", "auxiliary_head"), ("facebookresearch", "query_feat")])
def test_a_missing_part_is_named(name, lost):
    layout = LAYOUTS[name]
    weights = {key: value for key, value in reference(name)[0].items() if lost not in key}
    with pytest.raises(UserError, match=r"net\.\S+ is missing"):
        layout.facts(layout.read(weights))


def test_a_weight_without_a_place_is_named():
    weights, _ = reference("facebookresearch")
    with pytest.raises(UserError, match=r"sem_seg_head\.predictor\.extra"):
        LAYOUTS["facebookresearch"].read({**weights, "sem_seg_head.predictor.extra": torch.zeros(1)})


def test_old_names_and_the_pixels_of_facebookresearch():
    weights, _ = reference("facebookresearch")
    layout = LAYOUTS["facebookresearch"]
    old = {name.replace("query_feat", "static_query"): tensor for name, tensor in weights.items()}
    with pytest.raises(
        UserError, match=r"query_feat\.weight and \S+static_query\.weight are one weight of a Mask2Former"
    ):
        layout.read({**weights, **old})
    old |= {"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    assert raw(layout.read(old)) == raw(layout.read(weights))
    assert raw(layout.write(layout.read(old))) == raw(weights)
