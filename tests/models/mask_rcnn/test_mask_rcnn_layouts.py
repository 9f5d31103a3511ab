"""mmdet's Mask R-CNN files in our names and back."""

import pytest
import torch

from focalnet.errors import UserError
from focalnet.models.mask_rcnn.layouts import LAYOUTS
from focalnet.models.mask_rcnn.model import MaskRCNN
from focalnet.models.registry import families
from focalnet.variants import FocalNetConfig

MMDET, OWN = LAYOUTS
ALL = [layout for family in families() for layout in family.layout_tables]
CONFIG = FocalNetConfig(embed_dim=8, depths=(1, 1, 1, 1), focal_levels=(2,))


def network(config=CONFIG):
    return MaskRCNN(config, num_classes=3, options=MaskRCNN.Options(fpn_channels=16, representation_size=24))


@pytest.fixture
def published():
    """A file of mmdet: every number another one."""
    state = MMDET.write(network().state_dict())
    return {name: torch.randn_like(tensor) for name, tensor in state.items()}


def test_mmdets_names(published):
    heads = {name.removesuffix(".weight") for name in published if name.endswith("weight") and "backbone" not in name}
    assert heads == {
        *(f"neck.{kind}_convs.{i}.conv" for kind in ("lateral", "fpn") for i in range(4)),
        *("rpn_head.rpn_conv", "rpn_head.rpn_cls", "rpn_head.rpn_reg"),
        *("roi_head.bbox_head.shared_fcs.0", "roi_head.bbox_head.shared_fcs.1"),
        *("roi_head.bbox_head.fc_cls", "roi_head.bbox_head.fc_reg"),
        *(f"roi_head.mask_head.convs.{i}.conv" for i in range(4)),
        *("roi_head.mask_head.upsample", "roi_head.mask_head.conv_logits"),
    }
    assert "backbone.layers.3.blocks.0.modulation.focal_layers.1.0.weight" in published
    shapes = [tuple(published[f"roi_head.{name}.weight"].shape) for name in ("bbox_head.fc_reg", "bbox_head.fc_cls")]
    assert shapes == [(12, 24), (4, 24)]


def test_a_file_loads_strictly_and_writes_back_the_same_bytes(published):
    model = network()
    model.load_state_dict(MMDET.read(published), strict=True)
    written = MMDET.write(model.state_dict())
    assert set(written) == set(published)
    for name, tensor in published.items():
        assert written[name].numpy().tobytes() == tensor.numpy().tobytes(), name
    assert list(MMDET.write(MMDET.read(published))) == list(published)


def test_the_background_moves_to_the_front(published):
    ours = MMDET.read(published)
    classes, theirs = ours["roi_heads.box_predictor.cls_score.bias"], published["roi_head.bbox_head.fc_cls.bias"]
    assert classes.tolist() == [theirs[3], *theirs[:3]]
    boxes = ours["roi_heads.box_predictor.bbox_pred.bias"]
    assert boxes.tolist() == [0, 0, 0, 0, *published["roi_head.bbox_head.fc_reg.bias"]]
    masks = ours["roi_heads.mask_predictor.mask_fcn_logits.weight"]
    assert masks.shape == (4, 16, 1, 1)
    assert not masks[0].any()


def test_layouts_are_told_apart(published):
    ours = MMDET.read(published)
    assert [layout.name for layout in ALL if layout.matches(published)] == ["mmdet"]
    assert [layout.name for layout in ALL if layout.matches(ours)] == ["focalnet"]
    assert not any(layout.matches({"patch_embed.proj.weight": torch.zeros(1)}) for layout in ALL)
    boxes_only = {name: x for name, x in published.items() if "mask_head" not in name}
    assert not any(layout.matches(boxes_only) for layout in ALL)


def test_shapes_tell_the_head(published):
    for layout in LAYOUTS:
        facts = layout.facts(MMDET.read(published))
        assert facts.num_classes == 3
        assert facts.head_options == {"fpn_channels": 16, "representation_size": 24}
        assert facts.architecture == {}
    overlapped = network(CONFIG.replace(use_conv_embed=True)).state_dict()
    assert MMDET.facts(overlapped).architecture == {"stem_padding": 3}
    assert OWN.facts(overlapped).architecture == {}


def test_a_name_without_counterpart_is_refused(published):
    strange = "roi_head.bbox_head.shared_convs.0.conv.weight"
    with pytest.raises(UserError, match=rf"1 of \d+ names has no counterpart in Mask R-CNN: {strange};"):
        MMDET.read({**published, strange: torch.zeros(1)})
