"""What detectors and segmenters have in common, so that tasks and weights need not know which one they hold.

    model(images)                     raw outputs of a normalised batch (B, 3, H, W); nothing is resized
    model(images, targets, sizes)     losses; their weighted sum is "loss"
    model.detect(images, ...)         detectors: `Detections` in the pixels of the original images

A batch of images of several sizes is padded with zeros on the right and at the bottom; `sizes` tells what is
image. The head ignores the rest; the backbone cannot: its global context is a mean over the padded map, so an image
scores a little otherwise in a batch than alone. Evaluation therefore takes one image at a time by default.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor, nn

from focalnet.backbone import FocalNet
from focalnet.errors import UserError
from focalnet.variants import FocalNetConfig
from focalnet.weights.spec import ModelSpec

Target = dict[str, Tensor]
"""The truth of one image: `boxes` (N, 4) as x1 y1 x2 y2 in pixels of the input, `labels` (N,) from 0, and where the
head needs them `masks` (N, H, W), bool, at the size of the padded input."""
Outputs = dict[str, Tensor]
"""What a segmenter gives for a batch, by name."""
Sizes = Sequence[tuple[int, int]]
"""(height, width) per image."""


class DenseModel(nn.Module):
    """Base of detectors and segmenters.

    Class attributes:
        Options: a frozen dataclass, the options of the head; the constructor takes one as `options`.
        backbone_prefix: what the names of the backbone's parameters begin with; the rest are the official ones.

    Attributes:
        spec: set by `models.registry.build`.
    """

    Options: ClassVar[type]
    backbone_prefix: ClassVar[str]
    spec: ModelSpec

    @property
    def focalnet(self) -> FocalNet:
        """The FocalNet inside."""
        module = self.get_submodule(self.backbone_prefix.rstrip("."))
        assert isinstance(module, FocalNet)
        return module

    def class_parameters(self) -> Iterator[str]:
        """Names in the state dict whose shape depends on the number of classes: new for other classes."""
        raise NotImplementedError

    def embeddings(self) -> Iterator[Tensor]:
        """Matrices that are added and multiply nothing, which the official code of the head does not decay."""
        yield from ()


def require_four_stages(head: str, architecture: FocalNetConfig) -> None:
    """Refuse a backbone that a head for four maps cannot stand on.

    Raises:
        UserError: the backbone has more or fewer stages.
    """
    if len(architecture.depths) != 4:
        raise UserError(f"{head} needs a backbone of four stages, this one has {len(architecture.depths)}.")


def require_masks(targets: Sequence[Target], network: str) -> None:
    """Refuse targets of boxes alone for a network that learns from masks.

    Raises:
        UserError: a target has no `masks`.
    """
    for index, target in enumerate(targets):
        if "masks" not in target:
            raise UserError(
                f"target {index} has no `masks`, from which {network} learns; give masks (N, H, W), or train a "
                "detector of boxes, for example head='dino'."
            )
