"""UPerNet and Mask2Former: transformers' classes on our backbone.

    UPerNet       a class per pixel. Pyramid pooling on the last map, a feature pyramid over all maps, one 3x3
                  convolution over their concatenation; while training, a second small head on the third map helps
                  (weight 0.4). Equal to mmsegmentation's `UPerHead` and `FCNHead` under other names.
    Mask2Former   N queries, each a class (or none) and a mask: the dot product of the query with an embedding of every
                  position. A pixel decoder (deformable attention over three maps) makes these embeddings; in the
                  query decoder, a query attends only where its mask of the layer before is on. Every layer's
                  prediction is matched to the truth one to one and has its loss. Equal to facebookresearch's heads.

Choices that transformers does not make, after the official code: UPerNet has dropout before both classifiers and
averages its cross-entropy over all pixels, ignored ones included, so that a picture with little truth weighs little;
Mask2Former divides by the mean number of masks per process.

As there, Mask2Former's pixel decoder computes in float32 under autocast, its random weights are drawn layer by layer
from the same distributions, and its embeddings are not decayed.

What differs from the official code: losses are computed in float32 under autocast too.

Legend: B batch, K classes, H W pixels of the padded input, h w positions of the finest map, Q queries, N objects.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.backbone import Recompute
from focalnet.errors import UserError
from focalnet.models.dense import DenseModel, Detections, Target, require_masks
from focalnet.models.hf_backbone import FocalNetBackboneConfig  # first: it says which extra is missing
from focalnet.models.postprocess import Segment, cut_and_resize, instances, panoptic, resize, semantic
from focalnet.variants import FocalNetConfig

from transformers import (  # isort: skip
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss, Mask2FormerPixelDecoder  # isort: skip

IGNORE = 255
"""The class of pixels that count for nothing."""

Outputs = dict[str, Tensor]
Sizes = Sequence[tuple[int, int]]
"""(height, width) per picture."""


class _Classifier(nn.Conv2d):
    """Whole channels dropped, then a 1x1 convolution to the classes; parameters named as those of the convolution."""

    def __init__(self, channels: int, num_classes: int, dropout: float, std: float) -> None:
        super().__init__(channels, num_classes, 1)
        self.drop = nn.Dropout2d(dropout)
        nn.init.normal_(self.weight, std=std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the name is PyTorch's
        return super().forward(self.drop(input))


class UperNet(DenseModel):
    """UPerNet for semantic segmentation.

    Args:
        architecture: of the backbone.
        num_classes: classes.
        recompute: see `FocalNet`.
        channels: width of the head.
        aux_channels: width of the auxiliary head.
        aux_weight: weight of the auxiliary loss.
        dropout: rate at which channels are dropped before the classifiers.
        classifier_std: standard deviation of the classifiers' random weights. The official 0.01 is for a pre-trained
            backbone; a random one learns to tell classes apart sooner from larger weights.
        pool_scales: sides of the pooled maps.
        average_ignored: divide the cross-entropy by the number of all pixels, as mmsegmentation does; otherwise by the
            number of those that have a class.

    Attributes:
        net: transformers' network; `model.net.save_pretrained(folder)` writes it for plain transformers code.
    """

    trunk_prefix = "net.backbone.trunk."

    def __init__(
        self,
        architecture: FocalNetConfig,
        *,
        num_classes: int = 150,
        recompute: Recompute = "none",
        channels: int = 512,
        aux_channels: int = 256,
        aux_weight: float = 0.4,
        dropout: float = 0.1,
        classifier_std: float = 0.01,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        average_ignored: bool = True,
    ) -> None:
        super().__init__()
        _four_stages("UPerNet", architecture)
        config = UperNetConfig(
            backbone_config=FocalNetBackboneConfig(architecture=architecture),
            hidden_size=channels,
            pool_scales=list(pool_scales),
            auxiliary_channels=aux_channels,
            auxiliary_in_channels=architecture.channels[2],
            auxiliary_loss_weight=aux_weight,
            loss_ignore_index=IGNORE,
            num_labels=num_classes,  # type: ignore[call-arg]  # of every configuration
        )
        self.aux_weight = aux_weight
        self.average_ignored = average_ignored
        self.net: Any = UperNetForSemanticSegmentation(config)
        for head, width in ((self.net.decode_head, channels), (self.net.auxiliary_head, aux_channels)):
            for module in head.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            head.classifier = _Classifier(width, num_classes, dropout, classifier_std)
        self.net.decode_head.bottleneck.register_forward_pre_hook(_channels_last)
        self.trunk.set_recompute(recompute)

    def class_parameters(self) -> Iterator[str]:
        for head in ("decode_head", "auxiliary_head"):
            yield from (f"net.{head}.classifier.{leaf}" for leaf in ("weight", "bias"))

    def forward(self, images: Tensor, targets: Tensor | None = None, sizes: Sizes | None = None) -> Outputs:
        """Raw outputs, or losses.

        Args:
            images: (B, 3, H, W), normalised.
            targets: (B, H, W), int64, the class of each pixel; 255 where it has none.
            sizes: not needed: padding is 255 in `targets`.

        Returns:
            `logits` and `aux_logits`, (B, K, H, W); with targets `loss_main`, `loss_aux`, and `loss`, their weighted
            sum.

        Raises:
            UserError: one picture alone while training.
        """
        if (
            self.training
            and len(images) == 1
            and isinstance(self.net.decode_head.bottleneck.batch_norm, nn.BatchNorm2d)
        ):
            raise UserError(
                "UPerNet normalises over the batch and cannot learn from one picture; use a batch size >= 2."
            )
        maps = self.net.backbone(images).feature_maps
        heads = {"logits": self.net.decode_head, "aux_logits": self.net.auxiliary_head}
        outputs = {
            name: F.interpolate(head(maps), size=images.shape[2:], mode="bilinear", align_corners=False)
            for name, head in heads.items()
        }
        if targets is None:
            return outputs
        main, aux = (self._cross_entropy(logits.float(), targets) for logits in outputs.values())
        return {"loss_main": main, "loss_aux": aux, "loss": main + self.aux_weight * aux}

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        counted = targets.numel() if self.average_ignored else (targets != IGNORE).sum().clamp(min=1)
        return F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum") / counted

    def semantic(self, outputs: Outputs, sizes: Sizes, original_sizes: Sizes | None = None) -> list[Tensor]:
        """Probabilities of the classes at every pixel.

        Args:
            outputs: raw outputs of a batch.
            sizes: what of each padded input is picture.
            original_sizes: sizes of the pictures before they were resized; `sizes` by default.

        Returns:
            per picture (K, H, W), float32, at its original size.
        """
        return [
            cut_and_resize(logits, size, original).softmax(0)
            for logits, size, original in zip(outputs["logits"].float(), sizes, original_sizes or sizes, strict=True)
        ]


class _Mask2FormerConfig(Mask2FormerConfig):
    """transformers' configuration, which has a word to say about every backbone but this one."""

    backbones_supported = ("swin", FocalNetBackboneConfig.model_type)


class _PixelDecoder(Mask2FormerPixelDecoder):
    """transformers' pixel decoder, in the precision of its weights: places between pixels need more than 8 bits."""

    def forward(self, features: Sequence[Tensor], **options: Any) -> Any:
        precise = [feature.to(self.level_embed.dtype) for feature in features]
        with torch.autocast(precise[0].device.type, enabled=False):
            return super().forward(precise, **options)


class _Loss(Mask2FormerLoss):
    """transformers' loss, which asks accelerate for the number of masks of the other processes; this asks torch."""

    def get_num_masks(self, class_labels: list[Tensor], device: torch.device) -> Tensor:
        masks = torch.tensor(float(sum(len(labels) for labels in class_labels)), device=device)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(masks)
            masks = masks / torch.distributed.get_world_size()
        return masks.clamp(min=1)


class Mask2Former(DenseModel):
    """Mask2Former for semantic, instance and panoptic segmentation.

    Args:
        architecture: of the backbone.
        num_classes: classes; things and stuff together.
        recompute: see `FocalNet`.
        num_queries: most objects and regions per picture: 100 in the semantic and instance models, 200 for panoptic
            segmentation with a large backbone.
        hidden_dim: width of both decoders, a multiple of 32.
        ffn_dim: hidden width of the query decoder's MLPs.
        encoder_ffn_dim: the same of the pixel decoder.
        encoder_layers: layers of the pixel decoder.
        decoder_layers: predictions of the query decoder, one more than it has layers.
        heads: attention heads.
        points: random points at which masks are compared, instead of at all pixels.
        no_object_weight: weight of the class "none" in the cross-entropy.

    Attributes:
        net: transformers' network; `model.net.save_pretrained(folder)` writes it for plain transformers code.
        stride: pixels per position of the predicted masks.

    Raises:
        UserError: a width that the heads or the group norms do not divide.
    """

    trunk_prefix = "net.model.pixel_level_module.encoder.trunk."

    def __init__(
        self,
        architecture: FocalNetConfig,
        *,
        num_classes: int = 133,
        recompute: Recompute = "none",
        num_queries: int = 100,
        hidden_dim: int = 256,
        ffn_dim: int = 2048,
        encoder_ffn_dim: int = 1024,
        encoder_layers: int = 6,
        decoder_layers: int = 10,
        heads: int = 8,
        points: int = 12544,
        no_object_weight: float = 0.1,
    ) -> None:
        super().__init__()
        _four_stages("Mask2Former", architecture)
        if hidden_dim % 32 or hidden_dim % heads:
            raise UserError(f"hidden_dim={hidden_dim} with heads={heads}; give a multiple of 32 that the heads divide.")
        config = _Mask2FormerConfig(
            backbone_config=FocalNetBackboneConfig(architecture=architecture),
            num_queries=num_queries,
            hidden_dim=hidden_dim,
            feature_size=hidden_dim,
            mask_feature_size=hidden_dim,
            dim_feedforward=ffn_dim,
            encoder_feedforward_dim=encoder_ffn_dim,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            num_attention_heads=heads,
            train_num_points=points,
            no_object_weight=no_object_weight,
            feature_strides=list(architecture.strides),
            common_stride=architecture.strides[0],
            num_labels=num_classes,  # type: ignore[call-arg]  # of every configuration
        )
        self.stride = architecture.strides[0]
        self.net: Any = Mask2FormerForUniversalSegmentation(config)
        self.net.criterion = _Loss(config, self.net.weight_dict)
        self.net.model.pixel_level_module.decoder.__class__ = _PixelDecoder
        _draw_weights(self.net)
        self.trunk.set_recompute(recompute)

    def class_parameters(self) -> Iterator[str]:
        yield from ("net.class_predictor.weight", "net.class_predictor.bias", "net.criterion.empty_weight")

    def embeddings(self) -> Iterator[Tensor]:
        return (module.weight for module in self.net.modules() if isinstance(module, nn.Embedding))

    def forward(
        self, images: Tensor, targets: Sequence[Target] | None = None, sizes: Sizes | None = None
    ) -> dict[str, Tensor]:
        """Raw outputs, or losses.

        Args:
            images: (B, 3, H, W), normalised.
            targets: per picture `labels` (N,) and `masks` (N, H, W), bool.
            sizes: not needed: the official network attends to padding too.

        Returns:
            `class_logits` (B, Q, K + 1), the last one for "none", and `mask_logits` (B, Q, h, w). With targets the
            weighted losses `loss_cross_entropy`, `loss_mask`, `loss_dice` of the last layer, the same with `_0`, `_1`,
            … of those before, and `loss`, their sum.

        Raises:
            UserError: a target without masks.
        """
        require_masks(targets or (), "Mask2Former")
        hidden = self.net.model(images, output_hidden_states=True)
        masks = hidden.masks_queries_logits
        states = hidden.transformer_decoder_intermediate_states
        if targets is None:
            return {"class_logits": self.net.class_predictor(states[-1].transpose(0, 1)), "mask_logits": masks[-1]}
        classes = [self.net.class_predictor(state.transpose(0, 1)).float() for state in states]
        masks = [mask.float() for mask in masks]
        height, width = (side * self.stride for side in masks[0].shape[2:])
        rest = (0, width - images.shape[3], 0, height - images.shape[2])  # of an odd input: its map reaches over it
        with torch.autocast(images.device.type, enabled=False):
            losses = self.net.get_loss_dict(
                masks[-1],
                classes[-1],
                [F.pad(target["masks"].float(), rest) for target in targets],
                [target["labels"] for target in targets],
                self.net.get_auxiliary_logits(classes, masks),
            )
        return {**losses, "loss": torch.stack(list(losses.values())).sum()}

    def semantic(self, outputs: Outputs, sizes: Sizes, original_sizes: Sizes | None = None) -> list[Tensor]:
        """Scores of the classes at every pixel.

        Args:
            outputs: raw outputs of a batch.
            sizes: what of each padded input is picture.
            original_sizes: sizes of the pictures before they were resized; `sizes` by default.

        Returns:
            per picture (K, H, W), float32, at its original size; their sum over the classes is not 1.
        """
        return [semantic(*picture) for picture in self._pictures(outputs, sizes, original_sizes)]

    def instances(
        self,
        outputs: Outputs,
        sizes: Sizes,
        original_sizes: Sizes | None = None,
        *,
        top: int = 100,
        things: Sequence[int] | None = None,
    ) -> list[Detections]:
        """Objects with masks, best first.

        Args:
            outputs: raw outputs of a batch.
            sizes: what of each padded input is picture.
            original_sizes: sizes of the pictures before they were resized; `sizes` by default.
            top: most objects per picture.
            things: classes to keep; all of them by default.
        """
        pictures = self._pictures(outputs, sizes, original_sizes)
        return [instances(*picture, top=top, things=things) for picture in pictures]

    def detect(
        self, images: Tensor, sizes: Tensor | Sizes | None = None, original_sizes: Tensor | Sizes | None = None
    ) -> list[Detections]:
        """Objects with masks: `instances` of a batch (B, 3, H, W), sizes as pairs or tensors (B, 2)."""
        inside = _pairs(sizes) or [(images.shape[2], images.shape[3])] * len(images)
        return self.instances(self(images), inside, _pairs(original_sizes))

    def panoptic(
        self,
        outputs: Outputs,
        sizes: Sizes,
        original_sizes: Sizes | None = None,
        *,
        things: Sequence[int],
        object_mask_threshold: float = 0.8,
        overlap_threshold: float = 0.8,
    ) -> list[tuple[Tensor, list[Segment]]]:
        """A segment for every pixel; see `postprocess.panoptic`.

        Args:
            outputs: raw outputs of a batch.
            sizes: what of each padded input is picture.
            original_sizes: sizes of the pictures before they were resized; `sizes` by default.
            things: classes of countable objects; segments of any other class are merged into one.
            object_mask_threshold: least score of a query.
            overlap_threshold: least share of a query's mask that no stronger query takes.

        Returns:
            per picture the ids (H, W), int32, 0 where there is no segment, and the segments.
        """
        return [
            panoptic(*picture, things, object_mask_threshold, overlap_threshold)
            for picture in self._pictures(outputs, sizes, original_sizes)
        ]

    def _pictures(
        self, outputs: Outputs, sizes: Sizes, original_sizes: Sizes | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Per picture its class logits and its mask logits at the original size, float32."""
        for i, (size, original) in enumerate(zip(sizes, original_sizes or sizes, strict=True)):
            masks = outputs["mask_logits"][i].float()
            whole = (masks.shape[1] * self.stride, masks.shape[2] * self.stride)
            yield outputs["class_logits"][i].float(), cut_and_resize(resize(masks, whole), size, original)


@torch.no_grad()
def _draw_weights(net: Any) -> None:
    """Random weights of the heads as facebookresearch draws them, where transformers has a normal distribution of
    standard deviation 0.02 or, for three projections that were one matrix, another width."""
    pixel = net.model.pixel_level_module.decoder
    for projection in pixel.input_projections:
        nn.init.xavier_uniform_(projection[0].weight)
        nn.init.zeros_(projection[0].bias)
    for convolution in (pixel.mask_projection, pixel.adapter_1[0], pixel.layer_1[0]):
        nn.init.kaiming_uniform_(convolution.weight, a=1)
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)
    decoder = net.model.transformer_module.decoder
    for layer in (*pixel.encoder.layers, *decoder.layers):
        for linear in (layer.fc1, layer.fc2):
            linear.reset_parameters()
            nn.init.xavier_uniform_(linear.weight)
    for layer in decoder.layers:
        for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            nn.init.xavier_uniform_(linear.weight, gain=0.5**0.5)
    net.class_predictor.reset_parameters()


def _channels_last(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """The strides that all other maps have: pooled maps of 1x1 have none, and a training step would be slower.

    Evaluation keeps transformers' own order of additions, and so its bits.
    """
    return (inputs[0].contiguous(memory_format=torch.channels_last),) if module.training else inputs


def _pairs(sizes: Tensor | Sizes | None) -> Sizes | None:
    return [(height, width) for height, width in sizes.tolist()] if isinstance(sizes, Tensor) else sizes


def _four_stages(head: str, architecture: FocalNetConfig) -> None:
    if len(architecture.depths) != 4:
        raise UserError(f"{head} needs a backbone of four stages, this one has {len(architecture.depths)}.")
