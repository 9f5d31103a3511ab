"""Videos, frame by frame, through PyAV."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from focalnet.errors import MissingExtraError, UserError

VIDEO_EXTENSIONS = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()  # noqa: SIM905
)
"""Endings of the files that are taken for videos, in lower case."""
SYNC = b"G"
"""The first byte of an MPEG transport stream. Programs in TypeScript end in .ts too."""


def is_video(source: Any) -> bool:
    """Whether what a user wrote is a video file, by its suffix."""
    if not isinstance(source, str | Path) or (suffix := Path(source).suffix.lower()) not in VIDEO_EXTENSIONS:
        return False
    if suffix != ".ts" or not os.path.isfile(source):
        return True
    try:
        with open(source, "rb") as file:
            return file.read(1) == SYNC
    except OSError:
        return True  # reading it tells why not


def read_frames(source: str | Path) -> Iterator[tuple[dict[str, Any], Image.Image]]:
    """Frames of a video as they are decoded, turned and mirrored as its track says and every player shows them.

    Yields:
        `frame` (from 0) and `seconds`, and the image (RGB).

    Raises:
        UserError: the file is no video, or it is damaged, or no frame of it can be read.
        MissingExtraError: PyAV is not installed.
    """
    av, number = _av(), -1
    try:
        with av.open(str(source)) as container:
            stream = _video_stream(container, source)
            for number, frame in enumerate(container.decode(stream)):
                yield {"frame": number, "seconds": round(float(frame.time or 0), 3)}, _upright(frame)
    except av.FFmpegError as error:
        raise UserError(f"{source} cannot be read as a video ({error.strerror}): replace it.") from error
    if number < 0:
        raise UserError(f"{source} has no frame that can be read: replace it.")


def frame_rate(source: str | Path) -> Fraction:
    """Frames per second of a video.

    Raises:
        UserError: the file is no video.
    """
    av = _av()
    try:
        with av.open(str(source)) as container:
            return _video_stream(container, source).average_rate or Fraction(25)
    except av.FFmpegError as error:
        raise UserError(f"{source} cannot be read as a video ({error.strerror}): replace it.") from error


class VideoWriter:
    """Writes images as an .mp4, as large as the first one.

    Args:
        path: the file; its folder is made.
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path, self.rate = path, rate

    def __enter__(self) -> "VideoWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.container = _av().open(str(self.path), "w")
        self.stream: Any = None
        return self

    def write(self, image: Image.Image) -> None:
        """Add a frame."""
        if self.stream is None:
            self.stream = self.container.add_stream("mpeg4", rate=self.rate)
            self.stream.width, self.stream.height = (side - side % 2 for side in image.size)
            self.stream.bit_rate = 8_000_000
            self.stream.pix_fmt = "yuv420p"
        image = image.convert("RGB").crop((0, 0, self.stream.width, self.stream.height))
        frame = _av().VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
        self.container.mux(self.stream.encode(frame))

    def __exit__(self, *error: object) -> None:
        if self.stream is not None:
            self.container.mux(self.stream.encode())
        self.container.close()


def _upright(frame: Any) -> Image.Image:
    """A frame as its display matrix says: (x, y) is shown at (a x + c y, b x + d y), here to a quarter turn."""
    image = frame.to_image()
    data = next((bytes(item) for item in frame.side_data if item.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return image
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    if turned := abs(b) + abs(c) > abs(a) + abs(d):
        image = image.transpose(Image.Transpose.TRANSPOSE)
    if (c if turned else a) < 0:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if (b if turned else d) < 0 else image


def _video_stream(container: Any, source: str | Path) -> Any:
    if not container.streams.video:
        raise UserError(f"{source} holds no images, only sound: give a video.")
    return container.streams.video[0]


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise MissingExtraError("Reading videos", "dense") from None
    return av
