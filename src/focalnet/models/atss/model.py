"""ATSS (Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample
Selection", CVPR 2020) on the focal backbone, as mmdetection 2.11 computes it, which the published numbers come from.

A pyramid of five levels on the last three stages; two towers of convolutions, shared by the levels, say of each
position its classes, one box, and how central it is in its object:

    loss = focal(classes) + 2 · GIoU(boxes), weighted by the centre-ness + BCE(centre-ness)

    training    whose object a position is: see `assignment`
    inference   the best positions of each level by class times centre-ness, with all their classes above a score;
                then score = class · centre-ness, non-maximum suppression in each class

Legend: B images, A positions of all levels, one anchor each, K classes, N boxes.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from focalnet.backbone import FocalNet, Recompute
from focalnet.models.atss.assignment import assign, centreness
from focalnet.models.base import Detector, Target, enlarged, pairs, require_labels, whole_sizes
from focalnet.models.detection.boxes import Anchors, BoxCoder, BoxOutputs, clip, over_image, padded, precise, suppress
from focalnet.models.detection.losses import average_count, focal_loss
from focalnet.models.detection.pyramid import Pyramid, xavier
from focalnet.structures import Detections
from focalnet.variants import FocalNetConfig


@dataclass(frozen=True, kw_only=True)
class AtssOptions:
    """Options of an `Atss`."""

    channels: int = 256
    """Of the pyramid and the towers."""
    tower_depth: int = 4
    """Convolutions of each tower."""
    anchor_size: float = 8.0
    """Side of the square anchor, in strides of its level."""
    score_threshold: float = 0.05
    """Least probability of a class, before it is multiplied by the centre-ness."""
    nms_threshold: float = 0.6
    """A detection that overlaps a better one of its class by more is dropped."""
    candidates: int = 1000
    """Positions per level that are looked at."""
    detections: int = 100
    """The most per image."""


class ConvBlock(nn.Module):
    """A 3x3 convolution without bias, GroupNorm, ReLU (mmdetection's `ConvModule`)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        groups = math.gcd(32, channels)
        self.gn = nn.GroupNorm(groups if groups < channels else max(groups // 2, 1), channels)  # a map may be 1 x 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.relu(self.gn(self.conv(x)))


class Scale(nn.Module):
    """A learned factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """`x` times the factor."""
        return x * self.scale


class AtssHead(nn.Module):
    """The two towers and what they say, with the official names.

    Args:
        channels: of the maps.
        depth: of the towers.
        num_classes: K.
        levels: maps; each has a factor for its boxes.
    """

    def __init__(self, channels: int, depth: int, num_classes: int, levels: int) -> None:
        super().__init__()
        self.cls_convs = nn.Sequential(*(ConvBlock(channels) for _ in range(depth)))
        self.reg_convs = nn.Sequential(*(ConvBlock(channels) for _ in range(depth)))
        self.atss_cls = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.atss_reg = nn.Conv2d(channels, 4, 3, padding=1)
        self.atss_centerness = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(levels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(self.atss_cls.bias, -math.log(99))  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Per level (B, C, h, w) -> logits (B, A, K), deltas (B, A, 4), centre-ness logits (B, A); level by level, row
        by row; float32."""
        said = []
        for x, scale in zip(maps, self.scales, strict=True):
            classes, boxes = self.cls_convs(x), self.reg_convs(x)
            rows = self.atss_cls(classes), scale(self.atss_reg(boxes)).float(), self.atss_centerness(boxes)
            said.append([precise(row).flatten(2).transpose(1, 2) for row in rows])
        logits, deltas, centre = (torch.cat(rows, dim=1) for rows in zip(*said, strict=True))
        return logits, deltas, centre[..., 0]


class Atss(Detector[BoxOutputs]):
    """ATSS.

    Args:
        architecture: of the backbone. The published models have `focal_windows=(11, 9, 9, 7)`.
        num_classes: K.
        options: of the head.
        recompute: see `FocalNet`.
        frozen_stages: see `FocalNet`.
    """

    Options = AtssOptions
    backbone_prefix = "backbone.body."

    def __init__(
        self,
        architecture: FocalNetConfig,
        *,
        num_classes: int = 80,
        options: AtssOptions = AtssOptions(),
        recompute: Recompute = "none",
        frozen_stages: int = -1,
    ) -> None:
        super().__init__()
        stages = range(len(architecture.depths))[-3:]
        body = FocalNet(architecture, out_indices=stages, frozen_stages=frozen_stages, recompute=recompute)
        self.options, self.num_classes = options, num_classes
        self.backbone = Pyramid(body, options.channels, coarser=2)
        self.anchors = Anchors(self.backbone.strides, options.anchor_size, ratios=(1.0,))
        self.coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
        self.bbox_head = AtssHead(options.channels, options.tower_depth, num_classes, len(self.backbone.strides))
        xavier(self.backbone.fpn.modules())

    @property
    def detections(self) -> int:
        """The most detections of an image."""
        return self.options.detections

    @detections.setter
    def detections(self, most: int) -> None:
        self.options = dataclasses.replace(self.options, detections=most)

    def class_parameters(self) -> Iterator[str]:
        yield from ("bbox_head.atss_cls.weight", "bbox_head.atss_cls.bias")

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> BoxOutputs:
        """Detections in the pixels of the input, as tensors of one size for every image.

        Args:
            inputs: (B, 3, H, W), normalized.
            sizes: (B, 2), height and width of each image in a padded batch.
        """
        sizes = whole_sizes(inputs) if sizes is None else sizes.to(inputs.device)
        logits, deltas, centre, anchors = self._say(inputs)
        count = inputs.shape[0]
        scores, central = logits.sigmoid(), centre.sigmoid()
        kept, start = [], 0
        for level in anchors:
            end = start + level.shape[0]
            places = torch.arange(start, end, device=inputs.device).expand(count, -1)
            if level.shape[0] > self.options.candidates:
                rank = (scores[:, start:end] * central[:, start:end, None]).amax(2)
                places = rank.topk(self.options.candidates, dim=1).indices + start
            kept.append(places)
            start = end
        places = torch.cat(kept, dim=1)
        scores = scores.gather(1, places[..., None].expand(-1, -1, scores.shape[2]))
        images, rows, labels = torch.where(scores > self.options.score_threshold)
        positions = places[images, rows]
        boxes = self.coder.decode_single(deltas[images, positions], torch.cat(anchors)[positions])
        boxes, final = clip(boxes, sizes[images]), scores[images, rows, labels] * central[images, positions]
        chosen = suppress(
            boxes, final, labels, images, count=count, threshold=self.options.nms_threshold, limit=self.detections
        )
        return BoxOutputs(*(
            padded(values[chosen], images[chosen], count=count, limit=self.detections)
            for values in (boxes, final, labels)
        ))  # fmt: skip

    def loss(self, inputs: Tensor, targets: Sequence[Target], sizes: Tensor | None = None) -> dict[str, Tensor]:
        """`loss_cls`, `loss_bbox`, `loss_centerness` and their sum `loss`.

        Args:
            inputs: (B, 3, H, W), normalized.
            targets: per image `boxes` and `labels`; an image may have no object.
            sizes: (B, 2), height and width of each image in a padded batch.

        Raises:
            UserError: a label that is no class.
        """
        require_labels(targets, self.num_classes)
        sizes = whole_sizes(inputs) if sizes is None else sizes.to(inputs.device)
        logits, deltas, centre, levels = self._say(inputs)
        anchors = torch.cat(levels)
        stride = self.backbone.body.strides[-1]
        classes, boxes, weights, centres, positives = [], [], [], [], 0
        for index, (target, (height, width)) in enumerate(zip(targets, sizes.tolist(), strict=True)):
            chosen = [torch.where(over_image(level, height, width, stride))[0] for level in levels]
            starts = torch.tensor([0, *(level.shape[0] for level in levels[:-1])]).cumsum(0).tolist()
            joined = torch.cat([one + start for one, start in zip(chosen, starts, strict=True)])
            truth = precise(target["boxes"])
            owner = assign(anchors[joined], [one.shape[0] for one in chosen], truth)
            mine = torch.where(owner >= 0)[0]
            positives += max(len(mine), 1)
            wanted = torch.zeros(len(joined), self.num_classes, device=inputs.device, dtype=logits.dtype)
            wanted[mine, target["labels"][owner[mine]]] = 1
            classes.append(focal_loss(logits[index, joined], wanted).sum())
            place = joined[mine]
            central = centreness(anchors[place], truth[owner[mine]])
            found = self.coder.decode_single(deltas[index, place], anchors[place])
            boxes.append(generalized_box_iou_loss(found, truth[owner[mine]]) * central)
            weights.append(central)
            centres.append(F.binary_cross_entropy_with_logits(centre[index, place], central, reduction="sum"))
        count = average_count(torch.tensor(float(positives), device=inputs.device)).clamp(min=1)
        weight = average_count(torch.cat(weights).sum())
        losses = {
            "loss_cls": torch.stack(classes).sum() / count,
            "loss_bbox": 2 * torch.cat(boxes).sum() / torch.where(weight < 1e-12, torch.ones_like(weight), weight),
            "loss_centerness": torch.stack(centres).sum() / count,
        }
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    @torch.no_grad()
    def postprocess(self, outputs: BoxOutputs, sizes: Tensor, original_sizes: Tensor | None = None) -> list[Detections]:
        """Detections in the pixels of the original images.

        Args:
            outputs: of `forward`.
            sizes: (B, 2), height and width of each image in a padded batch.
            original_sizes: (B, 2), height and width of each image before it was resized; `sizes` by default.
        """
        results = []
        for *one, (size, original) in zip(*outputs, pairs(sizes, original_sizes), strict=True):
            boxes, scores, labels = (values[one[1] > 0] for values in one)
            results.append(Detections(enlarged(boxes, size, original), scores, labels))
        return results

    def _say(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """What the head says, and the anchors per level."""
        maps = self.backbone(self.backbone.whole_positions(inputs))
        return *self.bbox_head(maps), self.anchors(maps)
