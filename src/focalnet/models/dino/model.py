"""DINO with a FocalNet backbone: the detector behind 63.5 to 64.4 box AP on COCO.

    image -> FocalNet -> 1x1 convolutions to C channels, and one more map by a strided one -> transformer -> boxes

Every query gives class scores and a box. There is no suppression of doubles: attention among the queries and the
one-to-one matching of the loss teach them not to repeat each other.

Two releases differ in more than names; the options hold the differences, and `layouts` sets them.

                             official (IDEA-Research/DINO, FocalNet/FocalNet-DINO)    detrex
    heads of decoder layers  one for all                                              one per layer
    sine embedding           temperature 20, offset 0                                 10000, -0.5
    label embedding          one row more than classes, unused                        a row per class
    classes of COCO          91, the numbers of its annotations                       80
    noise of boxes           0.4 in the configuration, 1.0 in every script            1.0

`box_noise` is 1.0 here: the scripts override the configuration, and the paper's λ2 is 1.0 as well.

Legend: B batch, H W pixels, Q queries, C channels, L maps.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from focalnet.backbone import FocalNet, Recompute
from focalnet.errors import UserError
from focalnet.models.base import Detector, Target, whole_sizes
from focalnet.models.detection.matching import Truth, corners
from focalnet.models.dino.denoising import Denoising, Noise, group_count, make_queries
from focalnet.models.dino.loss import dino_losses
from focalnet.models.dino.transformer import Decoded, DinoTransformer, Mlp, Pyramid, inverse_sigmoid
from focalnet.structures import Detections
from focalnet.variants import FocalNetConfig

GROUPS = 32
"""Of the normalisation after the convolutions."""


def _projection(width: int, dim: int, *, strided: bool) -> nn.Sequential:
    convolution = nn.Conv2d(width, dim, 3, 2, 1) if strided else nn.Conv2d(width, dim, 1)
    nn.init.xavier_uniform_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, dim))


@dataclass(frozen=True, kw_only=True)
class DinoOptions:
    """Options of a `Dino`."""

    num_feature_levels: int = 4
    """L, the maps that the transformer sees: those of the last L - 1 stages, and one more."""
    out_indices: Sequence[int] | None = None
    """The stages instead, L - 1 of them."""
    num_queries: int = 900
    """Q, most objects that can be found."""
    hidden_dim: int = 256
    """C of the transformer, a multiple of 32 and of `heads`."""
    ffn_dim: int = 2048
    """Hidden width of its MLPs."""
    heads: int = 8
    """Heads of its attention."""
    points: int = 4
    """Points that deformable attention reads per head and map."""
    encoder_layers: int = 6
    """Layers of the encoder."""
    decoder_layers: int = 6
    """Layers of the decoder."""
    shared_heads: bool = True
    """One head for boxes and classes for all decoder layers; else one each."""
    spare_label: bool = True
    """A label embedding has one row more than there are classes."""
    position_temperature: float = 20.0
    """Temperature of the sine embedding of places."""
    position_offset: float = 0.0
    """Added to rows and columns, counted from 1, in that embedding."""
    dn_number: int = 100
    """Denoising: positive queries in the fullest image; 0 for none."""
    dn_label_noise: float = 0.5
    """Denoising: twice the probability that a label is replaced."""
    dn_box_noise: float = 1.0
    """Denoising: largest move of a side of a box, in half its width or height."""
    detections: int = 300
    """The most per image, over all queries and classes: a query counts once per class."""


class DinoOutputs(NamedTuple):
    """Raw outputs of a `Dino`.

    Attributes:
        pred_logits: (B, Q, K).
        pred_boxes: (B, Q, 4), cx, cy, w, h from 0 to 1 across the image.
    """

    pred_logits: Tensor
    pred_boxes: Tensor


class Dino(Detector[DinoOutputs]):
    """DINO, with the official names (`models/dino/dino.py`).

    Args:
        architecture: of the backbone.
        num_classes: K; labels count from 0.
        options: of the head.
        recompute: what the backward pass computes again, see `FocalNetBase` and `DinoTransformer`.

    Raises:
        UserError: widths or numbers of maps that do not fit.
    """

    Options = DinoOptions
    backbone_prefix = "backbone.0."

    def __init__(
        self,
        architecture: FocalNetConfig,
        *,
        num_classes: int = 91,
        options: DinoOptions = DinoOptions(),
        recompute: Recompute = "none",
    ) -> None:
        super().__init__()
        stages, levels, dim = len(architecture.depths), options.num_feature_levels, options.hidden_dim
        maps = levels - 1
        if not 1 <= maps <= stages:
            raise UserError(f"num_feature_levels={levels}; {stages} stages give 2 to {stages + 1} levels.")
        if dim % GROUPS or dim % options.heads:
            raise UserError(f"hidden_dim={dim}; make it a multiple of {GROUPS} and of heads={options.heads}.")
        indices = tuple(range(stages - maps, stages)) if options.out_indices is None else tuple(options.out_indices)
        if len(indices) != maps:
            raise UserError(f"out_indices={indices} with num_feature_levels={levels}; give {maps} stages.")
        self.num_classes, self.options = num_classes, options
        focalnet = FocalNet(architecture, out_indices=indices, recompute=recompute)
        self.backbone = nn.ModuleList([focalnet])
        widths = [*focalnet.channels, focalnet.channels[-1]]
        self.input_proj = nn.ModuleList(
            _projection(width, dim, strided=level == maps) for level, width in enumerate(widths)
        )
        self.transformer = DinoTransformer(
            dim, options.ffn_dim, levels=levels, heads=options.heads, points=options.points,
            encoder_layers=options.encoder_layers, decoder_layers=options.decoder_layers,
            num_queries=options.num_queries, position_temperature=options.position_temperature,
            position_offset=options.position_offset, recompute=recompute,
        )  # fmt: skip
        self.label_enc = nn.Embedding(num_classes + options.spare_label, dim)
        box, label = Mlp(dim, dim, dim, 4), nn.Linear(dim, num_classes)
        for parameter in list(box.parameters())[-2:]:  # at first, boxes do not move
            nn.init.zeros_(parameter)
        nn.init.constant_(label.bias, -math.log(99))  # and every class has a score of 0.01
        self.transformer.enc_out_bbox_embed = copy.deepcopy(box)
        self.transformer.enc_out_class_embed = copy.deepcopy(label)
        layers, shared = range(options.decoder_layers), options.shared_heads
        self.bbox_embed = nn.ModuleList(box if shared else copy.deepcopy(box) for _ in layers)
        self.class_embed = nn.ModuleList(label if shared else copy.deepcopy(label) for _ in layers)
        self.transformer.decoder.bbox_embed, self.transformer.decoder.class_embed = self.bbox_embed, self.class_embed

    @property
    def detections(self) -> int:
        """The most objects of an image: no more than there are queries."""
        return min(self.options.detections, self.options.num_queries)

    @detections.setter
    def detections(self, most: int) -> None:
        self.options = dataclasses.replace(self.options, detections=most)

    def class_parameters(self) -> Iterator[str]:
        """Names of the class heads and of the label embedding."""
        return (name for name in self.state_dict() if "class_embed" in name or name.startswith("label_enc"))

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> DinoOutputs:
        """Predictions of the last decoder layer.

        Args:
            inputs: (B, 3, H, W), normalized, padded with zeros on the right and at the bottom.
            sizes: (B, 2), height and width of the image in each padded input; None where there is no padding.
        """
        maps, pyramid = self.features(inputs, sizes)
        logits, boxes = self.predict(self.transformer(maps, pyramid, None, None, None), last=True)
        return DinoOutputs(logits[0], boxes[0])

    def loss(self, inputs: Tensor, targets: Sequence[Target], sizes: Tensor | None = None) -> dict[str, Tensor]:
        """ "loss" and its terms, see `dino_losses`; in training mode those of denoising are among them.

        Args:
            inputs: as in `forward`.
            targets: B times `boxes` and `labels`.
            sizes: as in `forward`.
        """
        maps, pyramid = self.features(inputs, sizes)
        whole = whole_sizes(inputs) if sizes is None else sizes.to(inputs.device)
        truth = Truth.of([x["boxes"] for x in targets], [x["labels"] for x in targets], whole)
        queries = min(self.options.num_queries, sum(height * width for height, width in pyramid.shapes))
        shaken = self.denoise(truth, queries) if self.training else None
        if shaken is None:
            decoded = self.transformer(maps, pyramid, None, None, None)
        else:
            decoded = self.transformer(maps, pyramid, shaken.content, shaken.places, shaken.hidden)
        logits, boxes = self.predict(decoded)
        losses = dino_losses(logits, boxes, decoded.proposal_logits, decoded.proposal_boxes, truth, shaken)
        # A batch without objects shakes none; under DDP every parameter needs a gradient in every step.
        losses["loss"] = losses["loss"] + 0.0 * self.label_enc.weight[0, 0]
        return losses

    def features(self, images: Tensor, sizes: Tensor | None) -> tuple[list[Tensor], Pyramid]:
        """L maps (B, C, h, w) and where they lie."""
        maps = self.backbone[0](images)
        inputs = [*maps, maps[-1]]
        maps = [projection(x) for projection, x in zip(self.input_proj, inputs, strict=True)]
        height, width = images.shape[2:]
        return maps, Pyramid.of(maps, (height, width), None if sizes is None else sizes.to(images.device))

    def denoise(self, truth: Truth, queries: int) -> Denoising | None:
        """Queries for denoising beside `queries` ordinary ones; None where there is nothing to shake."""
        groups = group_count(self.options.dn_number, truth.counts)
        if groups == 0:
            return None
        noise = self.draw_noise(2 * groups * len(truth.labels), truth.labels.device)
        return make_queries(
            truth, noise, self.label_enc, groups=groups, queries=queries, label_noise=self.options.dn_label_noise,
            box_noise=self.options.dn_box_noise,
        )  # fmt: skip

    def draw_noise(self, count: int, device: torch.device) -> Noise:
        """What is random in denoising; a test puts other numbers here."""
        return Noise.draw(count, self.num_classes, device)

    def predict(self, decoded: Decoded, *, last: bool = False) -> tuple[Tensor, Tensor]:
        """Logits (layers, B, queries, K) and boxes (layers, B, queries, 4) of all decoder layers, or of the last."""
        hidden, references = decoded.hidden, inverse_sigmoid(decoded.references)
        if last:
            hidden, references = hidden[-1:], references[-1:]
        if last or self.bbox_embed[0] is self.bbox_embed[-1]:
            return self.class_embed[-1](hidden), (self.bbox_embed[-1](hidden) + references).sigmoid()
        logits = torch.stack([head(x) for head, x in zip(self.class_embed, hidden, strict=True)])
        moves = torch.stack([head(x) for head, x in zip(self.bbox_embed, hidden, strict=True)])
        return logits, (moves + references).sigmoid()

    def postprocess(
        self, outputs: DinoOutputs, sizes: Tensor, original_sizes: Tensor | None = None, *, top: int | None = None
    ) -> list[Detections]:
        """The objects found, best first.

        Args:
            outputs: of `forward`.
            sizes: as in `forward`.
            original_sizes: (B, 2), height and width of the images before they were resized; `sizes` by default.
            top: most objects per image instead of the option `detections`.

        Returns:
            per image, boxes in pixels of the original one. As in the original they are not cut at its border.
        """
        logits, boxes = (x.float() for x in outputs)
        original = (sizes if original_sizes is None else original_sizes).to(boxes)
        scores, classes = logits.sigmoid(), logits.shape[2]
        scores, chosen = scores.flatten(1).topk(min(top or self.options.detections, scores[0].numel()), 1)
        boxes = corners(boxes) * original.flip(1).repeat(1, 2)[:, None]
        boxes = boxes.gather(1, (chosen // classes)[..., None].expand(-1, -1, 4))
        labels = chosen % classes
        return [Detections(*found) for found in zip(boxes, scores, labels, strict=True)]
