"""ATSS beside mmdetection 2.11: detections, losses, gradients; and the assignment by hand."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import focalnet
from focalnet.errors import UserError
from focalnet.models.atss.assignment import assign, centreness
from focalnet.models.atss.layouts import LAYOUTS
from focalnet.models.atss.model import Atss

FIXTURE = Path(__file__).parents[2] / "fixtures" / "atss"
MADE = runpy.run_path(str(FIXTURE / "make.py"))
REFERENCE = np.load(FIXTURE / "reference.npz")
MMDET = LAYOUTS[0]


@pytest.fixture
def drawn() -> Atss:
    return MADE["network"]()


def test_the_detections_of_mmdetection(drawn):
    images, _ = MADE["batch"]()
    with torch.no_grad():
        outputs = drawn(images, MADE["SIZES"])
    for index in range(2):
        expected, labels = (torch.from_numpy(REFERENCE[f"{index}.{name}"]) for name in ("boxes", "labels"))
        torch.testing.assert_close(outputs.scores[index], expected[:, 4], rtol=0, atol=1e-5)
        torch.testing.assert_close(outputs.boxes[index], expected[:, :4], rtol=0, atol=1e-2)
        assert torch.equal(outputs.labels[index], labels)


def test_the_losses_and_gradients_of_mmdetection(drawn):
    images, targets = MADE["batch"]()
    maps: list[torch.Tensor] = []

    def keep(module, inputs, output):
        maps.extend(level.detach().requires_grad_() for level in output)
        return tuple(maps)

    drawn.backbone.body.register_forward_hook(keep)
    losses = drawn.loss(images, targets, MADE["SIZES"])
    for name in ("loss_cls", "loss_bbox", "loss_centerness"):
        torch.testing.assert_close(losses[name].item(), float(REFERENCE[f"loss.{name}"]), rtol=1e-5, atol=0)
    losses["loss"].backward()
    norms = torch.stack([level.grad.norm() for level in maps if level.grad is not None])
    torch.testing.assert_close(norms, torch.from_numpy(REFERENCE["gradients"]).float(), rtol=1e-4, atol=0)
    gradients = {name: parameter.grad for name, parameter in drawn.named_parameters() if parameter.grad is not None}
    gradients = MMDET.write(gradients | {name: tensor for name, tensor in drawn.state_dict().items() if "body" in name})
    for key in REFERENCE.files:
        if key.startswith("gradient."):
            norm = gradients[key.removeprefix("gradient.")].norm()
            torch.testing.assert_close(norm.item(), float(REFERENCE[key]), rtol=1e-4, atol=1e-7)


def test_the_names_of_mmdetection(drawn):
    names = {name for name in MMDET.write(drawn.state_dict()) if not name.startswith("backbone.")}
    assert names == set(REFERENCE["names"])


@pytest.mark.parametrize(
    ("field", "millions", "gigamacs"),
    [pytest.param("srf", 36.521, 214.50, marks=pytest.mark.slow), ("lrf", 37.209, 220.08)],
)
def test_the_published_sizes(field, millions, gigamacs):
    """At 1280 x 800, convolutions and products alone; the paper gives 36.5 / 37.2 M, 215 / 220 G."""
    model = focalnet.create_model(f"atss_focalnet_tiny_{field}", device="meta").eval()
    with FlopCounterMode(display=False) as counter:
        model.bbox_head(model.backbone(torch.empty(1, 3, 800, 1280, device="meta")))
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 3) == millions
    assert counter.get_total_flops() / 2e9 == pytest.approx(gigamacs, abs=0.01)
    assert model.spec.architecture.focal_windows == (11, 9, 9, 7)


def test_whose_object_an_anchor_is():
    """One level of 4 x 4 anchors of 8 pixels, 8 apart, and one of 2 x 2 anchors of 16: the spread decides."""
    corners = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).flip(1) * 8
    small = torch.cat([corners, corners + 8], 1)
    corners = torch.cartesian_prod(torch.arange(2.0), torch.arange(2.0)).flip(1) * 16
    anchors = torch.cat([small, torch.cat([corners, corners + 16], 1)])
    owner = assign(anchors, [16, 4], torch.tensor([[0.0, 0, 16, 16], [24, 24, 32, 32]]))
    assert owner[16] == 0
    assert owner[15] == 1
    assert (owner >= 0).sum() == 2
    assert (assign(anchors, [16, 4], torch.zeros(0, 4)) == -1).all()


def test_centreness_is_one_in_the_middle():
    box = torch.tensor([[0.0, 0, 10, 20]])
    assert centreness(torch.tensor([[4.0, 8, 6, 12]]), box).item() == 1
    expected = ((2 / 8) * (5 / 15)) ** 0.5
    assert centreness(torch.tensor([[1.0, 4, 3, 6]]), box).item() == pytest.approx(expected)


def test_a_file_of_mmdetection_is_read_strictly(drawn, tmp_path):
    weights = MMDET.write(drawn.state_dict())
    torch.save({"state_dict": weights, "meta": {"epoch": 36}}, tmp_path / "atss.pth")
    again = focalnet.create_model(weights=tmp_path / "atss.pth")
    assert (again.spec.head, again.spec.num_classes) == ("atss", MADE["CLASSES"])
    assert all(torch.equal(tensor, drawn.state_dict()[name]) for name, tensor in again.state_dict().items())
    del weights["bbox_head.scales.3.scale"]
    torch.save({"state_dict": weights}, tmp_path / "short.pth")
    with pytest.raises(UserError, match=r"bbox_head\.scales\.3\.scale"):
        focalnet.create_model(weights=tmp_path / "short.pth")


def test_a_bare_file_of_an_overlapped_stem_has_the_padding_of_the_grown_kernels(tmp_path):
    small = {"embed_dim": 8, "depths": (1, 1, 1, 1), "channels": 16}
    model = focalnet.create_model("atss_focalnet_tiny_srf_overlap", num_classes=3, **small)
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    assert model.spec.architecture.stem_padding == 3
    assert focalnet.create_model(weights=tmp_path / "bare.pth").spec.architecture.stem_padding == 3


def test_images_without_objects_teach_only_the_background(drawn):
    images, targets = MADE["batch"]()
    losses = drawn.loss(images, [targets[1], targets[1]])
    assert losses["loss_bbox"] == losses["loss_centerness"] == 0
    losses["loss"].backward()


def test_more_detections_on_request(drawn):
    images, _ = MADE["batch"]()
    drawn.detections = 3
    assert [len(found.scores) for found in drawn.detect(images)] == [3, 3]


def test_a_label_that_is_no_class_is_refused(drawn):
    images, targets = MADE["batch"]()
    targets[0]["labels"] = targets[0]["labels"] + 3
    with pytest.raises(UserError, match="target 0 has labels from 3 to 9, but the model has 7 classes"):
        drawn.loss(images, targets)
