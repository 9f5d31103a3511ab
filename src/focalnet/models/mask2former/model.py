"""Mask2Former (Cheng et al., CVPR 2022) on our backbone: transformers' class, equal to facebookresearch's heads.

N queries, each a class (or none) and a mask: the dot product of the query with an embedding of every position. A pixel
decoder (deformable attention over three maps) makes these embeddings; in the query decoder, a query attends only where
its mask of the layer before is on. Every layer's prediction is matched to the truth one to one and has its loss.

Choices that transformers does not make, after the official code: losses are divided by the mean number of masks per
process, the pixel decoder computes in float32 under autocast, random weights are drawn layer by layer from the official
distributions, and embeddings are not decayed. Deformable attention is ours, which takes half the time.

What differs from the official code: losses are computed in float32 under autocast too.

Legend: B batch, K classes, H W pixels of the padded input, h w positions of the finest map, Q queries, N objects.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.backbone import Recompute
from focalnet.errors import UserError
from focalnet.models.base import Detector, Target, pairs, require_four_stages, require_masks
from focalnet.models.detection.deformable import DeformableAttention, Shapes
from focalnet.models.detection.losses import average_count
from focalnet.models.mask2former.postprocess import instances, panoptic, semantic
from focalnet.models.segmentation import cut_and_resize, resize
from focalnet.models.transformers import FocalNetBackboneConfig  # first: it says which extra is missing
from focalnet.structures import Detections, Segment
from focalnet.variants import FocalNetConfig

from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation  # isort: skip
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss, Mask2FormerPixelDecoder  # isort: skip


class _Mask2FormerConfig(Mask2FormerConfig):
    """transformers' configuration, which has a word to say about every backbone but this one."""

    backbones_supported = ("swin", FocalNetBackboneConfig.model_type)


class _PixelDecoder(Mask2FormerPixelDecoder):
    """transformers' pixel decoder, in the precision of its weights: places between pixels need more than 8 bits."""

    def forward(self, features: Sequence[Tensor], **options: Any) -> Any:
        precise = [feature.to(self.level_embed.dtype) for feature in features]
        with torch.autocast(precise[0].device.type, enabled=False):
            return super().forward(precise, **options)


class _DeformableAttention(DeformableAttention):
    """Our deformable attention, called as transformers' is; made of its layers, so weights have the same names."""

    def __init__(self, theirs: Any) -> None:
        with torch.device("meta"):  # draws no random numbers
            super().__init__(theirs.d_model, levels=theirs.n_levels, heads=theirs.n_heads, points=theirs.n_points)
        for name, layer in theirs.named_children():
            setattr(self, name, layer)

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        *,
        encoder_hidden_states: Tensor,
        position_embeddings: Tensor,
        reference_points: Tensor,
        spatial_shapes_list: Shapes,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        query = hidden_states + position_embeddings
        padding = None  # transformers marks none
        return super().forward(query, reference_points, encoder_hidden_states, spatial_shapes_list, padding), None


class _Loss(Mask2FormerLoss):
    """transformers' loss, which asks accelerate for the number of masks of the other processes; this asks torch."""

    def get_num_masks(self, class_labels: list[Tensor], device: torch.device) -> Tensor:
        masks = torch.tensor(float(sum(len(labels) for labels in class_labels)), device=device)
        return average_count(masks).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Mask2FormerOptions:
    """Options of a `Mask2Former`."""

    num_queries: int = 100
    """Most objects and regions per image: 100 in the semantic and instance models, 200 for panoptic segmentation with a
    large backbone."""
    hidden_dim: int = 256
    """Width of both decoders, a multiple of 32."""
    ffn_dim: int = 2048
    """Hidden width of the query decoder's MLPs."""
    encoder_ffn_dim: int = 1024
    """The same of the pixel decoder."""
    encoder_layers: int = 6
    """Layers of the pixel decoder."""
    decoder_layers: int = 10
    """Predictions of the query decoder, one more than it has layers."""
    heads: int = 8
    """Attention heads."""
    points: int = 12544
    """Random points at which masks are compared, instead of at all pixels."""
    no_object_weight: float = 0.1
    """Weight of the class "none" in the cross-entropy."""


class Mask2FormerOutputs(NamedTuple):
    """Raw outputs of a `Mask2Former`.

    Attributes:
        class_logits: (B, Q, K + 1), the last one for "none".
        mask_logits: (B, Q, h, w).
    """

    class_logits: Tensor
    mask_logits: Tensor


class Mask2Former(Detector[Mask2FormerOutputs]):
    """Mask2Former for semantic, instance and panoptic segmentation.

    Args:
        architecture: of the backbone.
        num_classes: classes; things and stuff together.
        options: of the head.
        recompute: see `FocalNet`.

    Attributes:
        net: transformers' network; `model.net.save_pretrained(folder)` writes it for plain transformers code.
        stride: pixels per position of the predicted masks.

    Raises:
        UserError: a width that the heads or the group norms do not divide.
    """

    Options = Mask2FormerOptions
    backbone_prefix = "net.model.pixel_level_module.encoder.trunk."

    def __init__(
        self,
        architecture: FocalNetConfig,
        *,
        num_classes: int = 133,
        options: Mask2FormerOptions = Mask2FormerOptions(),
        recompute: Recompute = "none",
    ) -> None:
        super().__init__()
        require_four_stages("Mask2Former", architecture)
        dim, heads = options.hidden_dim, options.heads
        if dim % 32 or dim % heads:
            raise UserError(f"hidden_dim={dim} with heads={heads}; give a multiple of 32 that the heads divide.")
        config = _Mask2FormerConfig(
            backbone_config=FocalNetBackboneConfig(architecture=architecture),
            num_queries=options.num_queries,
            hidden_dim=dim,
            feature_size=dim,
            mask_feature_size=dim,
            dim_feedforward=options.ffn_dim,
            encoder_feedforward_dim=options.encoder_ffn_dim,
            encoder_layers=options.encoder_layers,
            decoder_layers=options.decoder_layers,
            num_attention_heads=heads,
            train_num_points=options.points,
            no_object_weight=options.no_object_weight,
            feature_strides=list(architecture.strides),
            common_stride=architecture.strides[0],
            num_labels=num_classes,  # type: ignore[call-arg]  # of every configuration
        )
        self.stride = architecture.strides[0]
        self.net: Any = Mask2FormerForUniversalSegmentation(config)
        self.net.criterion = _Loss(config, self.net.weight_dict)
        decoder = self.net.model.pixel_level_module.decoder
        decoder.__class__ = _PixelDecoder
        for layer in decoder.encoder.layers:
            layer.self_attn = _DeformableAttention(layer.self_attn)
        _draw_weights(self.net)
        self.focalnet.set_recompute(recompute)

    def class_parameters(self) -> Iterator[str]:
        yield from ("net.class_predictor.weight", "net.class_predictor.bias", "net.criterion.empty_weight")

    def embeddings(self) -> Iterator[Tensor]:
        return (module.weight for module in self.net.modules() if isinstance(module, nn.Embedding))

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> Mask2FormerOutputs:
        """Raw outputs of the last layer.

        Args:
            inputs: (B, 3, H, W), normalized.
            sizes: not needed: the official network attends to padding too.
        """
        states, masks = self._decoded(inputs)
        return Mask2FormerOutputs(self.net.class_predictor(states[-1].transpose(0, 1)), masks[-1])

    def loss(self, inputs: Tensor, targets: Sequence[Target], sizes: Tensor | None = None) -> dict[str, Tensor]:
        """The weighted losses `loss_cross_entropy`, `loss_mask`, `loss_dice` of the last layer, the same with `_0`,
        `_1`, … of those before, and `loss`, their sum.

        Args:
            inputs: (B, 3, H, W), normalized.
            targets: per image `labels` (N,) and `masks` (N, H, W), bool.
            sizes: not needed.

        Raises:
            UserError: a target without masks.
        """
        require_masks(targets, "Mask2Former")
        states, masks = self._decoded(inputs)
        classes = [self.net.class_predictor(state.transpose(0, 1)).float() for state in states]
        masks = [mask.float() for mask in masks]
        height, width = (side * self.stride for side in masks[0].shape[2:])
        rest = (0, width - inputs.shape[3], 0, height - inputs.shape[2])  # of an odd input: its map reaches over it
        with torch.autocast(inputs.device.type, enabled=False):
            losses = self.net.get_loss_dict(
                masks[-1],
                classes[-1],
                [F.pad(target["masks"].float(), rest) for target in targets],
                [target["labels"] for target in targets],
                self.net.get_auxiliary_logits(classes, masks),
            )
        return {**losses, "loss": torch.stack(list(losses.values())).sum()}

    def _decoded(self, inputs: Tensor) -> tuple[Any, Any]:
        """The queries and the logits of their masks after every layer."""
        hidden = self.net.model(inputs, output_hidden_states=True)
        return hidden.transformer_decoder_intermediate_states, hidden.masks_queries_logits

    def postprocess(
        self,
        outputs: Mask2FormerOutputs,
        sizes: Tensor,
        original_sizes: Tensor | None = None,
        *,
        form: Literal["instances", "semantic", "panoptic"] = "instances",
        **options: Any,
    ) -> list[Any]:
        """What the outputs say in one of three forms; see the method of its name, also for `options`."""
        forms = {"instances": self.instances, "semantic": self.semantic, "panoptic": self.panoptic}
        return forms[form](outputs, sizes, original_sizes, **options)

    def semantic(
        self, outputs: Mask2FormerOutputs, sizes: Tensor, original_sizes: Tensor | None = None
    ) -> list[Tensor]:
        """Scores of the classes at every pixel.

        Args:
            outputs: raw outputs of a batch.
            sizes: (B, 2), height and width of what is image in each padded input.
            original_sizes: (B, 2), of the images before they were resized; `sizes` by default.

        Returns:
            per image (K, H, W), float32, at its original size; their sum over the classes is not 1.
        """
        return [semantic(*image) for image in self._images(outputs, sizes, original_sizes)]

    def instances(
        self,
        outputs: Mask2FormerOutputs,
        sizes: Tensor,
        original_sizes: Tensor | None = None,
        *,
        top: int = 100,
        things: Sequence[int] | None = None,
    ) -> list[Detections]:
        """Objects with masks, best first.

        Args:
            outputs: raw outputs of a batch.
            sizes: (B, 2), height and width of what is image in each padded input.
            original_sizes: (B, 2), of the images before they were resized; `sizes` by default.
            top: most objects per image.
            things: classes to keep; all of them by default.
        """
        images = self._images(outputs, sizes, original_sizes)
        return [instances(*image, top=top, things=things) for image in images]

    def panoptic(
        self,
        outputs: Mask2FormerOutputs,
        sizes: Tensor,
        original_sizes: Tensor | None = None,
        *,
        things: Sequence[int],
        object_mask_threshold: float = 0.8,
        overlap_threshold: float = 0.8,
    ) -> list[tuple[Tensor, list[Segment]]]:
        """A segment for every pixel; see `postprocess.panoptic`.

        Args:
            outputs: raw outputs of a batch.
            sizes: (B, 2), height and width of what is image in each padded input.
            original_sizes: (B, 2), of the images before they were resized; `sizes` by default.
            things: classes of countable objects; segments of any other class are merged into one.
            object_mask_threshold: least score of a query.
            overlap_threshold: least share of a query's mask that no stronger query takes.

        Returns:
            per image the ids (H, W), int32, 0 where there is no segment, and the segments.
        """
        return [
            panoptic(*image, things, object_mask_threshold, overlap_threshold)
            for image in self._images(outputs, sizes, original_sizes)
        ]

    def _images(
        self, outputs: Mask2FormerOutputs, sizes: Tensor, original_sizes: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Per image its class logits and its mask logits at the original size, float32."""
        for classes, masks, (size, original) in zip(*outputs, pairs(sizes, original_sizes), strict=True):
            whole = (masks.shape[1] * self.stride, masks.shape[2] * self.stride)
            yield classes.float(), cut_and_resize(resize(masks.float(), whole), size, original)


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
