"""`torch.export` traces a network of every family with a dynamic batch; the program computes what the network does."""

import pytest
import torch
import torchvision
from torch import nn
from torch.export import Dim, export

from focalnet import ops
from focalnet.backbone import FocalNet
from focalnet.models.atss.model import Atss
from focalnet.models.cascade_mask_rcnn.model import CascadeMaskRCNN
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.models.dino.model import Dino
from focalnet.models.mask2former.model import Mask2Former
from focalnet.models.mask_rcnn.model import MaskRCNN
from focalnet.models.sparse_rcnn.model import SparseRCNN
from focalnet.models.upernet.model import UperNet, _shares
from focalnet.variants import FocalNetConfig

SMALL = FocalNetConfig(embed_dim=8, depths=(1, 1, 1, 1), focal_levels=1)
ATTENTION = {"num_queries": 12, "hidden_dim": 32, "ffn_dim": 32, "heads": 4, "encoder_layers": 1}
FAMILIES = {
    "classifier": (FocalNetClassifier, {}),
    "mask_rcnn": (
        MaskRCNN,
        {"fpn_channels": 16, "representation_size": 24, "anchor_size": 4.0, "proposals": 30},
    ),
    "atss": (Atss, {"channels": 16, "tower_depth": 1, "anchor_size": 4.0, "candidates": 30, "detections": 20}),
    "sparse_rcnn": (
        SparseRCNN,
        {"channels": 16, "num_queries": 10, "stages": 2, "heads": 2, "ffn_dim": 16, "dynamic_dim": 4, "detections": 12},
    ),
    "cascade_mask_rcnn": (
        CascadeMaskRCNN,
        {"fpn_channels": 16, "representation_size": 24, "head_depth": 1, "anchor_size": 4.0, "proposals": 30},
    ),
    "dino": (Dino, {**ATTENTION, "decoder_layers": 2, "num_feature_levels": 3}),
    "upernet": (UperNet, {"channels": 16, "aux_channels": 8}),
    "mask2former": (Mask2Former, {**ATTENTION, "encoder_ffn_dim": 32, "decoder_layers": 2}),
}


def network(family: str) -> nn.Module:
    torch.manual_seed(0)
    if family == "backbone":
        return FocalNet(SMALL).eval()
    cls, options = FAMILIES[family]
    model = cls(SMALL, num_classes=5, options=cls.Options(**options)).eval()
    if isinstance(model, MaskRCNN):  # fresh heads tell no classes apart
        nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight)
        with torch.no_grad():
            best = [model(images(batch)).scores.max().item() for batch in (1, 2, 3)]
        assert len(set(best)) == 3
        model.roi_heads.score_thresh = min(best)  # in one of the batches nothing is found
    if isinstance(model, CascadeMaskRCNN):
        for head in model.roi_head.bbox_head:
            nn.init.normal_(head.fc_cls.weight)
    return model


def images(batch: int, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(batch))


@torch.no_grad()
def assert_same(program: nn.Module, model: nn.Module, *inputs: torch.Tensor) -> None:
    most = 1e-4 if isinstance(model, SparseRCNN) else 1e-5  # stage by stage its boxes enlarge rounding
    ours, theirs = program(*inputs), model(*inputs)
    if isinstance(theirs, torch.Tensor):
        ours, theirs = (ours,), (theirs,)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=most, atol=most)


LONG = ("upernet", "atss", "sparse_rcnn", "cascade_mask_rcnn")


@pytest.mark.parametrize("size", [(1, 9), (2, 2), (7, 5), (13, 6), (16, 25)])
@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_exported_pooling_divides_maps_as_torch_does(size, side):
    maps = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    rows, columns = (_shares(length, side, maps) for length in size)
    torch.testing.assert_close(rows @ maps @ columns.mT, nn.functional.adaptive_avg_pool2d(maps, side))


@pytest.mark.filterwarnings("ignore:`create_unbacked_symint` is deprecated:FutureWarning")  # torchvision calls it
@pytest.mark.parametrize(
    "family", ["backbone", *(pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in FAMILIES)]
)
def test_every_family_is_exported_with_a_dynamic_batch(family):
    assert torchvision.ops is not None  # its operators are part of the programs
    model, shapes, example = network(family), {0: Dim("batch", min=1, max=64)}, images(2)
    if family == "upernet":  # and dynamic sizes, here multiples of 32; with `Dim.AUTO` any, which takes longer
        example = images(2, 96, 160)  # a smaller one costs the tracer more
        shapes |= {2: 32 * Dim("rows", min=2, max=64), 3: 32 * Dim("columns", min=2, max=64)}
    with torch.no_grad():
        program = export(model, (example,), dynamic_shapes=(shapes,)).module()
    for batch in (1, 2, 3):
        assert_same(program, model, images(batch))
    if family == "upernet":
        assert_same(program, model, images(1, 128, 64))


@pytest.mark.filterwarnings("ignore:`create_unbacked_symint` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "family",
    [
        "mask_rcnn",
        "dino",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("cascade_mask_rcnn", "sparse_rcnn")),
    ],
)
def test_sizes_of_padded_images_are_an_input_too(family):
    model, batch = network(family), Dim("batch", min=1, max=64)
    sizes = torch.tensor([[64, 96], [50, 70], [64, 33]])
    with torch.no_grad():
        program = export(model, (images(2), sizes[:2]), dynamic_shapes=({0: batch}, {0: batch})).module()
    for count in (1, 3):
        assert_same(program, model, images(count), sizes[-count:])


ONE_BLOCK = FocalNetConfig(embed_dim=32, depths=(1,), focal_levels=2)
BETWEEN = 3 * 16 * 16 * 32 * (9 + 25) + 1
"""Multiplications of the operator on three maps of `ONE_BLOCK`, and one: where the tests put numba's threshold."""


@pytest.mark.parametrize("work", [0, BETWEEN], ids=["numba for all", "numba for some"])
def test_a_free_batch_is_exported_where_numba_is_installed(monkeypatch, work):
    pytest.importorskip("numba")
    monkeypatch.setattr(ops, "NUMBA_WORK", work)
    torch.manual_seed(0)
    model = FocalNetClassifier(ONE_BLOCK, num_classes=3).eval()
    with torch.no_grad():
        program = export(model, (images(2, 64, 64),), dynamic_shapes=({0: Dim("batch", min=1, max=4096)},))
    assert [(bound.lower, bound.upper) for bound in program.range_constraints.values()] == [(1, 4096)]
    for batch in (1, 5):
        assert_same(program.module(), model, images(batch, 64, 64))


@pytest.mark.parametrize(
    ("work", "learns"),
    [
        (BETWEEN, False),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((0, False), (0, True), (BETWEEN, True))),
    ],
)
def test_one_graph_serves_batches_of_every_size(monkeypatch, work, learns):
    pytest.importorskip("numba")
    monkeypatch.setattr(ops, "NUMBA_WORK", work)
    torch.manual_seed(0)
    model, graphs = FocalNetClassifier(ONE_BLOCK, num_classes=3).eval(), []

    def count(graph, example):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(model, backend=count, dynamic=True, fullgraph=True)
    with torch.set_grad_enabled(learns):
        for batch in (2, 3, 5):
            x = images(batch, 64, 64)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    assert len(graphs) == 1
