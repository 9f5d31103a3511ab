"""The options of the tasks on sounds and films; see `options`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from focalnet.errors import UserError
from focalnet.tasks.common_options import Embedded, TaskOptions, check_labels, check_mixing, default_model


@dataclass(frozen=True, kw_only=True)
class SignalOptions(TaskOptions):
    """The options of the tasks on sounds and films.

    Class attributes:
        kind: of the data, in the words of `data.register`.
    """

    kind: ClassVar[str]

    on_bad_file: Literal["stop", "skip"] = "stop"
    """A file that cannot be read stops the run, or is skipped and counted."""


@dataclass(frozen=True, kw_only=True)
class SignalClassOptions(SignalOptions):
    """The options of the tasks that tell the class of a sound or a film."""

    score: ClassVar[str] = "top1"

    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes."""
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    """How much the samples of each class count in the loss: "balanced" counts classes alike, however many samples they
    have; or a number per class, in the order of their names."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_labels(self.label_smoothing, self.class_weights)


@dataclass(frozen=True, kw_only=True)
class SoundOptions(SignalClassOptions):
    """Classification of sounds."""

    name: ClassVar[str] = "sound"
    kind: ClassVar[str] = "sound"
    embedded: ClassVar[Embedded] = Embedded("sound_scenes", "sound_scenes", default_model("sound", "minifocal_32"))
    recipe: ClassVar[str] = "finetune_sound"

    model: str = default_model("sound", "focalnet_base_srf")
    """The network: a name from `focalnet models`, any other HEAD_VARIANT, or "small" for one that a CPU trains."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    seconds: float | None = None
    """Length of a clip: of longer sounds the middle is heard, in training any part; without it, what the weights were
    made for, or 5."""
    size: Annotated[int | None, tyro.conf.Suppress] = None
    """Side in pixels of the image of a spectrogram; without it, what the weights were made for."""
    scale: Annotated[float | None, tyro.conf.Suppress] = None
    """What the cosines are multiplied by for the loss and the probabilities; 1 as published, without it as the weights
    or 30."""
    augment: Literal["none", "drop"] = "drop"
    """Augmentation: "drop" silences bands of frequencies and moments, as the authors do."""
    interpretation: Annotated[bool, tyro.conf.Suppress] = False
    """Measure how well what is heard accounts for the answers, too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seconds is not None and not 0 < self.seconds <= 3600:
            raise UserError(f"--seconds is {self.seconds}; give the length of a clip, up to 3600.")
        if self.scale is not None and not self.scale > 0:
            raise UserError(f"--scale is {self.scale}; give a number above 0.")


@dataclass(frozen=True, kw_only=True)
class VideoOptions(SignalClassOptions):
    """Classification of films."""

    name: ClassVar[str] = "video"
    kind: ClassVar[str] = "video"
    embedded: ClassVar[Embedded] = Embedded("moving_digits", "moving_digits", default_model("video", "minifocal_32"))
    recipe: ClassVar[str] = "finetune_video"

    model: str = default_model("video", "tiny")
    """The network: a name from `focalnet models`, any other HEAD_VARIANT, or "small" for one that a CPU trains."""
    frames: int | None = None
    """Frames that are seen of a film, spread over the whole; without it, what the weights were made for, or 8."""
    image_size: int | None = None
    """Side of a frame in pixels; without it, what the weights were made for."""
    augment: Literal["none", "light", "kinetics"] = "light"
    """Augmentation, the same for all frames of a film: "kinetics" is the authors', "light" crops a little and flips."""
    mixing: tuple[float, float] = (0.0, 0.0)
    """Alpha of mixup and of cutmix; the authors' code has 0.8 1.0; 0 0 mixes nothing."""
    temporal_gates: Annotated[Literal["random", "open"], tyro.conf.Suppress] = "random"
    """How the gates over time begin where there are no weights: near zero, as the authors', or near one."""
    tta: Annotated[bool, tyro.conf.Suppress] = False
    """Predict from four draws of frames and three crops of a film, as the published figures."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_mixing(self.mixing)
        if self.frames is not None and not 1 <= self.frames <= 1024:
            raise UserError(f"--frames is {self.frames}; give 1 to 1024.")
        if self.image_size is not None and self.image_size < 1:
            raise UserError(f"--image-size is {self.image_size}; give a side in pixels.")


@dataclass(frozen=True, kw_only=True)
class CodecOptions(SignalOptions):
    """Training of a speech codec."""

    name: ClassVar[str] = "codec"
    kind: ClassVar[str] = "speech"
    score: ClassVar[str] = "fidelity"
    embedded: ClassVar[Embedded] = Embedded("spoken", "small_codec", default_model("codec", "small"))
    recipe: ClassVar[str] = "codec_features"
    scratch: ClassVar[str | None] = "small_codec"
    written: ClassVar[tuple[str, ...]] = ("npz", "wav", "html")

    model: str = default_model("codec", "50hz")
    """The network: a name from `focalnet models`, or "small" for one that a CPU trains."""
    stage: Literal["features", "decoder", "both"] = "both"
    """What is trained: "features", the tokens, which give the features back; "decoder", which makes sound of features,
    against discriminators; or both at once, which do not know of each other."""
    num_classes: Annotated[int | None, tyro.conf.Suppress] = None
    freeze: Annotated[int | Literal["backbone"] | None, tyro.conf.Suppress] = None
    drop_path: Annotated[float | None, tyro.conf.Suppress] = None
    seconds: float = 2.0
    """Length of a clip in training, any part of a longer sound; evaluation hears the whole."""
    segment: Annotated[int, tyro.conf.Suppress] = 7040
    """Samples of a clip that the decoder and the discriminators are trained on, after the features were made of all."""
    decoder_lr: Annotated[float | None, tyro.conf.Suppress] = None
    """Peak learning rate of the decoder and the discriminators; without it, `lr`."""
    discriminator_share: Annotated[float, tyro.conf.Suppress] = 1.0
    """Channels of the discriminators, as a share of HiFi-GAN's."""
    dwer: Annotated[bool, tyro.conf.Suppress] = False
    """Measure dWER (PocketSphinx) too: words that are understood otherwise in the decoded speech; it is slow."""

    def __post_init__(self) -> None:
        for option in ("num_classes", "freeze", "drop_path"):
            if getattr(self, option) is not None:
                raise UserError(f"--{option.replace('_', '-')} means nothing to a codec; leave it out.")
        super().__post_init__()
        if not 0.5 <= self.seconds <= 3600:
            raise UserError(f"--seconds is {self.seconds}; give the length of a clip, 0.5 to 3600.")
        if self.segment < 1024:
            raise UserError(f"--segment is {self.segment}; give 1024 samples or more.")
        if self.decoder_lr is not None and not self.decoder_lr > 0:
            raise UserError(f"--decoder-lr is {self.decoder_lr}; give a rate above 0.")
        if not 0 < self.discriminator_share <= 1:
            raise UserError(f"--discriminator-share is {self.discriminator_share}; give a share above 0, 1 at most.")
