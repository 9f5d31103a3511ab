"""Films as a network for films sees them: some frames, spread over the whole.

A film is cut into as many equal parts as the network sees frames, its last three frames left out where enough others
are left, as in Video-FocalNet (mmaction's `SampleFrames` of one frame per clip; there also in the shortest films, whose
frames are then seen twice):

    evaluation   the middle frame of each part
    training     a random one of each part, whose draw is the transform's

A film is not decoded when it is read, only counted; its frames are decoded when they are asked for, one after the
other, so that an hour of film takes no more memory than a second.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import PIL.Image

from focalnet.errors import BadFileError, UserError
from focalnet.inputs.image import IMAGENET_MEAN, IMAGENET_STD, Image, Interpolation
from focalnet.inputs.video import VIDEO_EXTENSIONS, count_frames, frames_at

if TYPE_CHECKING:
    from torch import Tensor

REACH = 3
"""Frames at the end that are never shown: there, a clip of one frame was read as four times as long."""
MOST_FRAMES = 1024


class Film:
    """Frames in their order, upright, RGB.

    Args:
        source: a file, or the frames themselves, (T, H, W, 3), uint8.
        name: what errors call it.

    Raises:
        BadFileError: it is no film, or has no frame.
        UserError: an array of another shape or type.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, source: str | Path | np.ndarray, name: str) -> None:
        self.name, self._source = name, source
        if isinstance(source, np.ndarray):
            if source.dtype != np.uint8 or source.ndim != 4 or source.shape[3] != 3 or not source.size:
                raise UserError(
                    f"{name} is {source.dtype} of shape {source.shape}: frames are uint8, (T, H, W, 3), RGB."
                )
            self._length = len(source)
        else:
            self._length = count_frames(source)

    def __len__(self) -> int:
        return self._length

    def take(self, numbers: Sequence[int]) -> list[PIL.Image.Image]:
        """Frames by their numbers, from 0, all as large as the first; where the film ends before one, the last one."""
        if isinstance(self._source, np.ndarray):
            return [PIL.Image.fromarray(self._source[number]) for number in numbers]
        found = frames_at(self._source, set(numbers))
        last = max(found)
        frames = [found.get(number, found[last]) for number in numbers]
        size = frames[0].size
        return [frame if frame.size == size else frame.resize(size) for frame in frames]


@dataclass(frozen=True, kw_only=True)
class Video:
    """How a network wants its films: which frames, and each of them as an image (`inputs.Image`).

    Shape:
        a film -> (frames, 3, H, W), float32.

    Raises:
        UserError: no frames, or a size with which no image can be prepared.
    """

    kind: ClassVar[str] = "video"
    noun: ClassVar[str] = "video"
    suffixes: ClassVar[frozenset[str]] = VIDEO_EXTENSIONS

    frames: int = 8
    """Frames that the network sees."""
    input_size: int = 224
    """Side of the square that it sees of each, in pixels."""
    crop_pct: float = 0.875
    """Crop over resized side."""
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 1 <= self.frames <= MOST_FRAMES:
            raise UserError(f"frames={self.frames}; give 1 to {MOST_FRAMES}.")
        if len(self.mean) != 3:
            raise UserError(f"the mean has {len(self.mean)} numbers; frames have three channels.")
        _ = self.still

    @property
    def still(self) -> Image:
        """How each frame is seen."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["frames"]
        return Image(**fields)

    def read(self, source: Any, /) -> Film:
        """A film from a path or frames (T, H, W, 3), uint8; see `Film`."""
        if isinstance(source, Film):
            return source
        if isinstance(source, str | Path):
            if not os.path.isfile(source):
                raise BadFileError(f"{source} is no file; check the path.")
            return Film(source, str(source))
        if isinstance(source, np.ndarray):
            return Film(source, "the array")
        raise UserError(f"a film cannot be of the type {type(source).__name__}: give a path or an array (T, H, W, 3).")

    def describe(self) -> str:
        """What is done to a film, one sentence for the model card."""
        return f"{self.frames} frames, the middle of as many equal parts of the film. {self.still.describe()}"

    def numbers(self, length: int, place: float | Callable[[], float] = 0.5) -> list[int]:
        """The frames that are seen of a film of so many.

        Args:
            length: frames of the film.
            place: where in each part, from 0 to 1, not included; or a function that draws it anew for each.
        """
        usable = length - REACH if length - REACH >= self.frames else length
        part = usable / self.frames
        places = (place() if callable(place) else place for _ in range(self.frames))
        return [min(int(index * part + within * part), length - 1) for index, within in enumerate(places)]

    def __call__(self, signal: Film, /) -> "Tensor":
        """What the network sees of a film in evaluation."""
        return self.seen(signal.take(self.numbers(len(signal))))

    def seen(self, frames: Sequence[PIL.Image.Image]) -> "Tensor":
        """What the network sees of frames."""
        import torch

        still = self.still
        return torch.stack([still(frame) for frame in frames])
