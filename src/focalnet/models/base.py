"""The contract of whole networks, so that tasks and weights need not know which family they hold.

    outputs = network(inputs, sizes)                             raw tensors of a normalized batch, see each `forward`
    losses = network.loss(inputs, targets, sizes)                scalars; "loss" is what is minimized
    predictions = network.postprocess(outputs, sizes, original)  one per image, in pixels of the original image
    found = network.detect(inputs, sizes, original)              detectors: both steps at once

`forward` keeps to fixed-size tensors and does not branch on their values: `torch.export` traces it with a dynamic
batch.

A batch of images of several sizes is padded with zeros on the right and at the bottom; `sizes`, an int64 tensor (B, 2)
of heights and widths, tells what is image. The head ignores the rest; the backbone cannot: its global context is a mean
over the padded map, so an image scores a little otherwise in a batch than alone. Evaluation therefore takes one image
at a time by default.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from focalnet.backbone import FocalNetBase
from focalnet.errors import UserError
from focalnet.structures import Detections
from focalnet.variants import FocalNetConfig
from focalnet.weights.spec import ModelSpec

Target = dict[str, Tensor]
"""The truth of one image: `boxes` (N, 4) as x1 y1 x2 y2 in pixels of the input, `labels` (N,) from 0, and where the
head needs them `masks` (N, H, W), bool, at the size of the padded input; `outlined` (N,), bool, where some objects
have a box and no mask."""
Outputs = TypeVar("Outputs")
"""What `forward` returns: a tensor, or a `NamedTuple` of tensors."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A step of a network, which is exported as a file of its own.

    Attributes:
        call: tensors to a tuple of tensors.
        examples: what successive calls take, tensors by name, for a batch of the network's inputs; at least one.
        outputs: their names. What `next_x` gives is what the next call takes as `past_x`.
        free: axes of an input that may have any length; where it is missing none but the batch, its first.
    """

    call: Callable[..., tuple[Tensor, ...]]
    examples: Callable[[Tensor], list[dict[str, Tensor]]]
    outputs: tuple[str, ...]
    free: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Network(nn.Module, Generic[Outputs]):
    """Base of all networks: a FocalNet and a head, or a network of its own.

    Class attributes:
        Options: a frozen dataclass, the options of the head; the constructor takes one as `options`.
        backbone_prefix: what the names of the FocalNet's parameters begin with; the rest are the official ones. None
            where no FocalNet is inside.

    Attributes:
        spec: set by `models.registry.build`.
    """

    Options: ClassVar[type]
    backbone_prefix: ClassVar[str | None]
    spec: ModelSpec

    @property
    def focalnet(self) -> FocalNetBase:
        """The FocalNet inside.

        Raises:
            UserError: there is none.
        """
        if self.backbone_prefix is None:
            raise UserError(
                f"{type(self).__name__} has no FocalNet inside, and so no backbone to take, to freeze or to compile."
            )
        module = self.get_submodule(self.backbone_prefix.rstrip("."))
        assert isinstance(module, FocalNetBase)
        return module

    def class_parameters(self) -> Iterator[str]:
        """Names in the state dict whose shape depends on the number of classes: new for other classes."""
        raise NotImplementedError

    def embeddings(self) -> Iterator[Tensor]:
        """Matrices that are added and multiply nothing, which the official code of the head does not decay."""
        yield from ()

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> Outputs:
        """Raw outputs, before any threshold.

        Args:
            inputs: (B, 3, H, W), normalized and padded.
            sizes: (B, 2), int64, height and width of each image in the padded input; without it, all is image.
        """
        raise NotImplementedError

    def programs(self) -> Mapping[str, Program]:
        """The steps of the network that can be files of their own, by name."""
        return {}

    def loss(self, inputs: Tensor, targets: Any, sizes: Tensor | None = None) -> dict[str, Tensor]:
        """The terms of the loss, scalars, and under "loss" their weighted sum.

        Args:
            inputs: as in `forward`.
            targets: the truth, as the family learns from it.
            sizes: as in `forward`.
        """
        raise NotImplementedError

    def postprocess(self, outputs: Outputs, sizes: Tensor, original_sizes: Tensor | None = None) -> list[Any]:
        """One prediction per image.

        Args:
            outputs: of `forward`.
            sizes: as in `forward`.
            original_sizes: (B, 2), int64, height and width of each image before it was resized; `sizes` by default.
        """
        raise NotImplementedError


class Detector(Network[Outputs]):
    """Base of the networks whose predictions are `Detections`."""

    @property
    def detections(self) -> int:
        """The most that it tells of an image; may be set."""
        raise NotImplementedError

    @detections.setter
    def detections(self, most: int) -> None:
        raise NotImplementedError

    @torch.no_grad()
    def detect(
        self, inputs: Tensor, sizes: Tensor | None = None, original_sizes: Tensor | None = None, **options: Any
    ) -> list[Detections]:
        """The objects in a batch, best first: `postprocess` of `forward`.

        Args:
            inputs: (B, 3, H, W), normalized and padded.
            sizes: (B, 2), int64, height and width of each image in the padded input; without it, all is image.
            original_sizes: (B, 2), int64, height and width of each image before it was resized; `sizes` by default.
            options: of `postprocess`.

        Returns:
            per image, in pixels of the original one.
        """
        inside = whole_sizes(inputs) if sizes is None else sizes
        postprocess: Any = self.postprocess
        return postprocess(self(inputs, sizes), inside, original_sizes, **options)


def whole_sizes(inputs: Tensor) -> Tensor:
    """The `sizes` of a batch (B, C, H, W) without padding: (B, 2), int64."""
    batch, _, height, width = inputs.shape
    sizes = (torch.full((batch,), side, device=inputs.device) for side in (height, width))
    return torch.stack(list(sizes), 1)


def pairs(sizes: Tensor, original_sizes: Tensor | None) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Per image its (height, width) in the input, and that of the original."""
    originals = sizes if original_sizes is None else original_sizes
    return [((h, w), (y, x)) for (h, w), (y, x) in zip(sizes.tolist(), originals.tolist(), strict=True)]


def require_four_stages(head: str, architecture: FocalNetConfig) -> None:
    """Refuse a backbone that a head for four maps cannot stand on.

    Raises:
        UserError: the backbone has more or fewer stages.
    """
    if len(architecture.depths) != 4:
        raise UserError(f"{head} needs a backbone of four stages, this one has {len(architecture.depths)}.")


def enlarged(boxes: Tensor, size: tuple[int, int], original: tuple[int, int]) -> Tensor:
    """Boxes (N, 4) in pixels of an image of `size`, (height, width), in pixels of the `original` one."""
    return boxes * boxes.new_tensor([original[1] / size[1], original[0] / size[0]] * 2)


def require_labels(targets: Sequence[Target], num_classes: int) -> None:
    """Refuse targets with a label that is no class.

    Raises:
        UserError: a target has one.
    """
    for index, target in enumerate(targets):
        labels = target["labels"]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise UserError(
                f"target {index} has labels from {int(labels.min())} to {int(labels.max())}, but the model has "
                f"{num_classes} classes, which count from 0; set num_classes."
            )


def require_masks(targets: Sequence[Target], network: str) -> None:
    """Refuse targets of boxes alone for a network that learns from masks.

    Raises:
        UserError: a target has no `masks`.
    """
    for index, target in enumerate(targets):
        if "masks" not in target:
            raise UserError(
                f"target {index} has no `masks`, from which {network} learns; give masks (N, H, W), or train a "
                "detector that learns from boxes."
            )
