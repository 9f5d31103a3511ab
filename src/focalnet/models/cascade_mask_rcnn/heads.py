"""The second stage of Cascade Mask R-CNN: three stages of heads, each on the boxes of the one before.

    stage    box code                     overlap of an object's boxes    weight
    0        (.1, .1, .2, .2)             0.5                             1
    1        (.05, .05, .1, .1)           0.6                             1/2
    2        (.033, .033, .067, .067)     0.7                             1/4

Each stage trains on a sample of its boxes and on the objects themselves; the sampled boxes without these, refined by
the code of their class, are the next stage's. No gradient passes from stage to stage. Heads may run under autocast;
boxes, scores and losses are float32.

Legend: N boxes, K classes, the background is the last.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.ops import generalized_box_iou_loss

from focalnet.models.base import Target
from focalnet.models.detection.boxes import BoxCoder, MaxIoUMatcher, clip, precise, suppress
from focalnet.models.detection.proposals import Proposals
from focalnet.models.detection.pyramid import xavier
from focalnet.models.detection.regions import RoIPool
from focalnet.models.detection.sampling import labels_of, mask_loss, sample, with_masks
from focalnet.models.detection.two_stage import Found, TwoStageOptions
from focalnet.ops.compiling import is_exporting

BOX_WEIGHT = 10.0
"""Of the GIoU loss."""


class Stage(NamedTuple):
    """What differs from stage to stage.

    Attributes:
        stds: what the numbers of a box code are multiplied with: x, y, log width, log height.
        overlap: a box that overlaps its best object by less is background.
        weight: of the stage's losses.
    """

    stds: tuple[float, float, float, float]
    overlap: float
    weight: float


STAGES = (
    Stage((0.1, 0.1, 0.2, 0.2), 0.5, 1.0),
    Stage((0.05, 0.05, 0.1, 0.1), 0.6, 0.5),
    Stage((0.033, 0.033, 0.067, 0.067), 0.7, 0.25),
)


class ConvBlock(nn.Module):
    """A 3x3 convolution, batch norm or a bias, ReLU (mmdetection's `ConvModule`)."""

    def __init__(self, channels: int, *, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=not norm)
        self.bn = nn.BatchNorm2d(channels) if norm else nn.Identity()
        _kaiming(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        norm: Any = self.bn
        if isinstance(norm, nn.Identity) or not is_exporting():
            return F.relu(norm(self.conv(x)))
        # PyTorch's batch norm asks whether there is any region, which a program cannot know
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        return F.relu(self.conv(x) * scale[:, None, None] + shift[:, None, None])


class BoxHead(nn.Module):
    """Class and box of a region, with the official names."""

    def __init__(self, options: TwoStageOptions, depth: int, num_classes: int) -> None:
        super().__init__()
        channels, width = options.fpn_channels, options.representation_size
        self.shared_convs = nn.Sequential(*(ConvBlock(channels, norm=True) for _ in range(depth)))
        self.shared_fcs = nn.Sequential(nn.Linear(channels * 7**2, width))
        self.fc_cls = nn.Linear(width, num_classes + 1)
        self.fc_reg = nn.Linear(width, 4 * num_classes)
        xavier(self.shared_fcs)
        for layer, std in ((self.fc_cls, 0.01), (self.fc_reg, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, 7, 7) -> logits (N, K + 1) and box codes (N, K, 4)."""
        x = F.relu(self.shared_fcs(self.shared_convs(x).flatten(1)))
        return precise(self.fc_cls(x)), precise(self.fc_reg(x)).unflatten(1, (-1, 4))


class MaskHead(nn.Module):
    """The masks of a region, one per class, with the official names."""

    def __init__(self, channels: int, depth: int, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(ConvBlock(channels, norm=False) for _ in range(depth)))
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.conv_logits = nn.Conv2d(channels, num_classes, 1)
        _kaiming(self.upsample)
        _kaiming(self.conv_logits)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, 14, 14) -> logits (N, K, 28, 28)."""
        return precise(self.conv_logits(F.relu(self.upsample(self.convs(x)))))


class CascadeHeads(nn.Module):
    """Class, box and mask of each proposal, in three stages.

    Args:
        options: of the network.
        depth: convolutions of each head.
        num_classes: K.
        strides: pixels per position of each level that boxes are pooled from.
    """

    def __init__(self, options: TwoStageOptions, depth: int, num_classes: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.num_classes, self.detections_per_img = num_classes, options.detections
        self.score_threshold, self.nms_threshold = options.score_threshold, options.nms_threshold
        self.bbox_head = nn.ModuleList(BoxHead(options, depth, num_classes) for _ in STAGES)
        self.mask_head = nn.ModuleList(MaskHead(options.fpn_channels, depth, num_classes) for _ in STAGES)
        self.box_pool, self.mask_pool = RoIPool(7, strides), RoIPool(14, strides)
        self.coders = [BoxCoder(tuple(1 / std for std in stage.stds)) for stage in STAGES]  # type: ignore[arg-type]
        self.matchers = [MaxIoUMatcher(stage.overlap, stage.overlap, best=None) for stage in STAGES]
        self.sampler = BalancedPositiveNegativeSampler(options.roi_samples, 0.25)

    def forward(self, levels: Sequence[Tensor], proposals: Proposals, sizes: Tensor) -> Found:
        """Detect: the mean of the stages' logits tells the class, the last stage the box, the mean of the stages'
        probabilities the mask.

        Args:
            levels: of the pyramid; the last one is not used.
            proposals: of the first stage.
            sizes: (B, 2), height and width of each image.
        """
        boxes, images = proposals
        logits, codes = self._boxes(0, levels, boxes, images)
        total = logits
        for stage in range(1, len(STAGES)):
            boxes = self._refined(stage - 1, boxes, codes, logits[:, :-1].argmax(1), sizes[images])
            logits, codes = self._boxes(stage, levels, boxes, images)
            total = total + logits
        scores = (total / len(STAGES)).softmax(-1)[:, :-1]
        row, label = torch.where(scores > self.score_threshold)
        score, images = scores[row, label], images[row]
        boxes = self._refined(-1, boxes[row], codes[row], label, sizes[images])
        kept = suppress(
            boxes, score, label, images,
            count=levels[0].shape[0], threshold=self.nms_threshold, limit=self.detections_per_img,
        )  # fmt: skip
        boxes, score, label, images = boxes[kept], score[kept], label[kept], images[kept]
        masks = [self._masks(stage, levels, boxes, images, label).sigmoid() for stage in range(len(STAGES))]
        return Found(boxes, score, label, images, torch.stack(masks).sum(0) / len(masks))

    def loss(
        self, levels: Sequence[Tensor], proposals: Proposals, sizes: Tensor, targets: list[Target]
    ) -> dict[str, Tensor]:
        """Per stage cross entropy over the sampled boxes, GIoU over their number, cross entropy of the masks' pixels.

        Args:
            levels: of the pyramid; the last one is not used.
            proposals: of the first stage.
            sizes: (B, 2), height and width of each image.
            targets: `boxes`, `labels`, `masks` at the size of the padded input; `outlined` where some objects have a
                box and no mask: these are left out of the masks.

        Returns:
            `s0.loss_cls`, `s0.loss_bbox`, `s0.loss_mask`, and so on for each stage, weighted.
        """
        objects = torch.cat([target["boxes"] for target in targets]).to(proposals.boxes)
        losses = {}
        for index, stage in enumerate(STAGES):
            sampled = sample(proposals, targets, self.matchers[index], self.sampler)
            boxes, images, owners, added = sampled
            label, count = labels_of(sampled, targets, self.num_classes), max(len(boxes), 1)
            logits, codes = self._boxes(index, levels, boxes, images)
            positive = torch.where(owners >= 0)[0]
            found = self.coders[index].decode_single(codes[positive, label[positive]], boxes[positive])
            apart = generalized_box_iou_loss(found, objects[owners[positive]], reduction="sum")
            outlined = with_masks(sampled, targets)
            masks = self._masks(index, levels, boxes[outlined], images[outlined], label[outlined])
            terms = {
                "loss_cls": F.cross_entropy(logits, label, reduction="sum") / count,
                "loss_bbox": BOX_WEIGHT * apart / count,
                "loss_mask": mask_loss(masks, outlined, sampled, targets),
            }
            losses |= {f"s{index}.{name}": stage.weight * term for name, term in terms.items()}
            if index + 1 < len(STAGES):
                label = label.where(owners >= 0, logits[:, :-1].argmax(1))
                kept = torch.where(~added)[0]
                boxes = self._refined(index, boxes[kept], codes[kept].detach(), label[kept], sizes[images[kept]])
                proposals = Proposals(boxes, images[kept])
        return losses

    def _boxes(self, stage: int, levels: Sequence[Tensor], boxes: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the classes, (N, K + 1), and box codes, (N, K, 4)."""
        return self.bbox_head[stage](self.box_pool(levels[:-1], boxes, images))

    def _refined(self, stage: int, boxes: Tensor, codes: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
        """Boxes (N, 4) moved by the codes (N, K, 4) of their labels (N,), within images of `sizes` (N, 2)."""
        codes = codes[torch.arange(labels.shape[0], device=labels.device), labels]
        return clip(self.coders[stage].decode_single(codes, boxes), sizes)

    def _masks(self, stage: int, levels: Sequence[Tensor], boxes: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Logits of the masks of these classes, (N, 28, 28)."""
        logits = self.mask_head[stage](self.mask_pool(levels[:-1], boxes, images))
        return logits[torch.arange(labels.shape[0], device=labels.device), labels]


def _kaiming(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
