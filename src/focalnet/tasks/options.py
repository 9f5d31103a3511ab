"""The options of the tasks, and what they begin with: what a command line needs to know of a task.

Nothing here imports torch, so that `focalnet train --help` answers at once; the tasks themselves, in the other modules
of this folder, are these with the methods that do the work.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from focalnet.errors import UserError
from focalnet.inputs.image import Range, View
from focalnet.tasks.common_options import (
    Embedded,
    TaskOptions,
    check_labels,
    check_mixing,
    check_task,
    check_threshold,
    default_model,
)
from focalnet.tasks.signal_options import CodecOptions, SignalOptions, SoundOptions, VideoOptions
from focalnet.variants import MOST_CHANNELS

__all__ = ["OPTIONS", "ClassifyOptions", "DenseOptions", "DetectOptions", "ImageOptions", "PanopticOptions",
           "SegmentOptions", "TaskOptions", "check_task"]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ImageOptions(TaskOptions):
    """The options of the tasks on images.

    Class attributes:
        kind: of the data, in the words of `data.register`.
    """

    kind: ClassVar[str]

    image_size: int | tuple[int, int] | None = None
    """Side of the input in pixels, or height and width; without it, what the weights were made for."""
    channels: int | None = None
    """Channels of the images, where they are not the weights' own: 1 for grey, 4 or more for TIFFs with bands."""
    range: Range | None = None
    """What the values of images with other than 8 bits mean: "auto" the whole range of 16 bits, "8bit" 0 to 255,
    "full" the whole range of every type, "percentile" each image's own; without it, as the weights ("auto")."""
    normalize: Annotated[Literal["weights", "data"], tyro.conf.Suppress] = "weights"
    """Mean and std that pixels are normalized with: those of the weights, or of the training images."""
    mean: Annotated[tuple[float, ...] | None, tyro.conf.Suppress] = None
    """The mean itself, of 0 to 1, a number per channel."""
    std: Annotated[tuple[float, ...] | None, tyro.conf.Suppress] = None
    """The std itself."""
    max_pixels: Annotated[int | None, tyro.conf.Suppress] = None
    """Most pixels of an image; without it, Pillow's limit of 89,478,485 against decompression bombs."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """An image that cannot be read stops the run, or is skipped and counted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = self.image_size if isinstance(self.image_size, tuple) else (self.image_size or 1,)
        if self.image_size == 0 or min(sides) < 1:
            raise UserError(
                f"--image-size is {' '.join(map(str, sides)) if self.image_size else 0}; give a side in pixels, or "
                f"height and width, or leave it out."
            )
        for option, value in (("--channels", self.channels), ("--max-pixels", self.max_pixels)):
            if value is not None and value < 1:
                raise UserError(f"{option} is {value}; give 1 or more, or leave it out.")
        if self.channels is not None and self.channels > MOST_CHANNELS:
            raise UserError(f"--channels is {self.channels:,}; give at most {MOST_CHANNELS:,}.")
        if (self.mean is None) != (self.std is None):
            raise UserError("--mean and --std belong together; give both, or --normalize data.")
        if self.std is not None and not min(self.std, default=0) > 0:
            raise UserError(f"--std is {' '.join(map(str, self.std))}; give numbers above 0, one per channel.")


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(ImageOptions):
    """Image classification."""

    name: ClassVar[str] = "classify"
    kind: ClassVar[str] = "class"
    score: ClassVar[str] = "top1"
    embedded: ClassVar[Embedded] = Embedded("digits", "digits", "minifocal_32")
    recipe: ClassVar[str] = "finetune"
    scratch: ClassVar[str | None] = "scratch"
    small: ClassVar[str | None] = "minifocal_128"

    augment: Literal["none", "light", "imagenet", "digits"] = "light"
    """Augmentation: "imagenet" is the paper's, "light" crops and flips, "digits" bends a little and never flips."""
    mixing: tuple[float, float] = (0.0, 0.0)
    """Alpha of mixup and of cutmix; the paper's code has 0.8 1.0; 0 0 mixes nothing."""
    resize: View | None = None
    """What of an image is seen: "crop" the middle, in the shape of the input, "squash" all of it, out of shape, "pad"
    all of it, with a border; without it, as the weights ("crop")."""
    draft: Annotated[bool, tyro.conf.Suppress] = False
    """Decode training JPEGs at a half, a quarter or an eighth of their size where no random crop would be enlarged:
    faster for photographs of many megapixels, whose pixels are then smoothed in another way."""
    raw_batches: Annotated[bool, tyro.conf.Suppress] = False
    """Hand training images to the device as bytes, a quarter of the size, and normalize them there; not with an
    augmentation that erases or with mixing."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes."""
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    """How much the images of each class count in the loss: "balanced" counts classes alike, however many images they
    have; or a number per class, in the order of their names."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_mixing(self.mixing)
        check_labels(self.label_smoothing, self.class_weights)
        if self.raw_batches and max(self.mixing) > 0:
            raise UserError("--raw-batches gives bytes, and --mixing mixes normalized images; leave one of them out.")


@dataclass(frozen=True, kw_only=True)
class MultilabelOptions(ClassifyOptions):
    """Multi-label classification."""

    name: ClassVar[str] = "multilabel"
    kind: ClassVar[str] = "multilabel"
    score: ClassVar[str] = "map"
    embedded: ClassVar[Embedded] = Embedded("digit_groups", "digit_groups", "minifocal_32")

    threshold: Annotated[float | None, tyro.conf.Suppress] = None
    """Least score of a label; without it, what is best on the validation data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_threshold(self.threshold or 0)


@dataclass(frozen=True, kw_only=True)
class DenseOptions(ImageOptions):
    """The options of the tasks on whole images, with objects or a label per pixel."""

    augment: Literal[
        "none",
        "light",
        "detr",
        "hres",
        "lsj",
        "semantic",
        "semantic_steps",
        "slices",
        "turns",
        "digit_scenes",
        "digit_crops",
    ] = "light"
    """Augmentation: "light" flips and rescales a little, "detr" resizes and crops at many scales, "hres" is its
    larger form, "lsj" large-scale jitter, "semantic" and "semantic_steps" ratio, crop and color, "slices" flips and
    turns, "turns" turns a little and never flips, "digit_scenes" and "digit_crops" enlarge and never flip."""
    on_bad_annotation: Literal["skip", "stop"] = "skip"
    """A broken annotation (no area, outside, unknown class) is left out and counted, or stops the run."""
    num_queries: Annotated[int | None, tyro.conf.Suppress] = None
    """Queries of a Mask2Former or DINO whose head is new; the name's number without it."""
    tta: Annotated[bool, tyro.conf.Suppress] = False
    """Predict from mirrored and resized copies of an image too."""


@dataclass(frozen=True, kw_only=True)
class DetectOptions(DenseOptions):
    """Object detection and instance segmentation."""

    name: ClassVar[str] = "detect"
    kind: ClassVar[str] = "detection"
    score: ClassVar[str] = "box_ap"
    embedded: ClassVar[Embedded] = Embedded("digit_scenes", "digit_scenes", default_model("detect", "minifocal_128"))
    recipe: ClassVar[str] = "finetune_detector"
    scratch: ClassVar[str | None] = "scratch_detector"
    has_results: ClassVar[bool] = True

    model: str = default_model("detect", "focalnet_tiny_lrf")
    """The network: a name from `focalnet models`, any other HEAD_VARIANT, or "small" for one that a CPU trains."""
    detections: int | None = None
    """Most objects of an image; without it, what the network has. Above 100, COCO's table counts so many too."""
    crowd: Annotated[Literal["learn", "ignore"] | None, tyro.conf.Suppress] = None
    """What annotations with iscrowd 1 are: objects to learn, or regions to ignore; without it regions, and objects
    where a data set has nothing else."""
    threshold: Annotated[float | None, tyro.conf.Suppress] = None
    """Least score of an object in a prediction; without it, what was best on the validation data, else 0.5."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_threshold(self.threshold or 0.0)
        if self.detections is not None and self.detections < 1:
            raise UserError(f"--detections is {self.detections}; give 1 or more.")


LEAST_WINDOW = 32
"""A position of the coarsest map in pixels; smaller squares would be one forward pass for every few pixels."""


@dataclass(frozen=True, kw_only=True)
class SegmentOptions(DenseOptions):
    """Semantic segmentation."""

    name: ClassVar[str] = "segment"
    kind: ClassVar[str] = "semantic"
    score: ClassVar[str] = "miou"
    embedded: ClassVar[Embedded] = Embedded("digit_scenes", "digit_scenes", default_model("segment", "minifocal_128"))
    recipe: ClassVar[str] = "finetune_segmenter"
    scratch: ClassVar[str | None] = "scratch_segmenter"

    model: str = default_model("segment", "focalnet_tiny_lrf")
    """The network: a name from `focalnet models`, any other HEAD_VARIANT, or "small" for one that a CPU trains."""
    window: Annotated[int | None, tyro.conf.Suppress] = None
    """Side of the squares that an image is seen in, in pixels of the resized image; whole without it."""
    dice: Annotated[bool, tyro.conf.Suppress] = False
    """Measure Dice and HD95 of every image too, as is usual in medicine; class 0 is the background."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and self.window < LEAST_WINDOW:
            raise UserError(
                f"--window is {self.window}; give the side of a square, {LEAST_WINDOW} pixels or more, or leave it out."
            )


@dataclass(frozen=True, kw_only=True)
class PanopticOptions(DenseOptions):
    """Panoptic segmentation."""

    name: ClassVar[str] = "panoptic"
    kind: ClassVar[str] = "panoptic"
    score: ClassVar[str] = "pq"
    embedded: ClassVar[Embedded] = Embedded("digit_scenes", "digit_scenes", default_model("panoptic", "minifocal_128"))
    recipe: ClassVar[str] = "finetune_segmenter"
    scratch: ClassVar[str | None] = "scratch_segmenter"

    model: str = default_model("panoptic", "focalnet_tiny_lrf")
    """The network: a name from `focalnet models`, any other HEAD_VARIANT, or "small" for one that a CPU trains."""
    threshold: Annotated[float, tyro.conf.Suppress] = 0.8
    """Least score of a segment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_threshold(self.threshold)
        if self.tta:
            raise UserError("--tta is for detection and semantic segmentation; leave it out for panoptic.")


OPTIONS: dict[str, type[ImageOptions | SignalOptions]] = {
    cls.name: cls
    for cls in (
        ClassifyOptions,
        MultilabelOptions,
        DetectOptions,
        SegmentOptions,
        PanopticOptions,
        SoundOptions,
        VideoOptions,
        CodecOptions,
    )
}
"""The options of each task of the package, by its name, which is that of its module."""
