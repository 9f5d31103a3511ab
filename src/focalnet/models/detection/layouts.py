"""What the layouts of detectors share: where the FocalNet is, and mmdetection's names of pyramid and proposals.

Left ours, right theirs, for `Renaming`.
"""

BODY = "backbone.body."
"""What the FocalNet's names begin with in ours."""
PYRAMID = [
    (BODY, "backbone."),
    ("backbone.fpn.inner_blocks.{i}.0", "neck.lateral_convs.{i}.conv"),
    ("backbone.fpn.layer_blocks.{i}.0", "neck.fpn_convs.{i}.conv"),
]
PROPOSALS = [
    ("rpn.head.conv.0.0", "rpn_head.rpn_conv"),
    ("rpn.head.cls_logits", "rpn_head.rpn_cls"),
    ("rpn.head.bbox_pred", "rpn_head.rpn_reg"),
]
