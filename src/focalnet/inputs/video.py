"""Videos, cameras and streams, frame by frame, through PyAV.

clip.mp4, https://host/clip.mp4    a film: every frame, or every `stride`-th
webcam:0, or 0 where no file is called so; rtsp://host/door; http://host/camera.mjpg; …
                                   live: it has no length, and of its frames the newest one is taken whenever the
                                   network is free, so that predictions never lag behind
"""

import os
import queue
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from focalnet.errors import BadFileError, MissingExtraError, UserError

VIDEO_EXTENSIONS = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()  # noqa: SIM905
)
"""Endings of the files that are taken for videos, in lower case."""
LIVE_SCHEMES = ("webcam:", "rtsp://", "rtsps://", "rtmp://", "rtmps://", "srt://", "udp://")
LIVE_EXTENSIONS = (".m3u8", ".mjpeg", ".mjpg")
"""Endings of http(s) addresses that are live."""
PATIENCE = 10.0
"""Seconds that a stream may take to answer."""
SYNC = b"G"
"""The first byte of an MPEG transport stream. Programs in TypeScript end in .ts too."""


def is_live(source: Any) -> bool:
    """Whether what a user wrote is a camera or a stream, which has no length."""
    if not isinstance(source, str):
        return False
    if source.startswith(("http://", "https://")):
        return urlsplit(source).path.lower().endswith(LIVE_EXTENSIONS)
    return source.startswith(LIVE_SCHEMES) or (source.isdecimal() and not os.path.exists(source))


def is_video(source: Any) -> bool:
    """Whether what a user wrote is a video file, by its suffix, or live."""
    if is_live(source):
        return True
    if not isinstance(source, str | Path) or (suffix := Path(source).suffix.lower()) not in VIDEO_EXTENSIONS:
        return False
    if suffix != ".ts" or not os.path.isfile(source):
        return True
    try:
        with open(source, "rb") as file:
            return file.read(1) == SYNC
    except OSError:
        return True  # reading it tells why not


class Frames:
    """The frames of a film or stream as they are decoded, turned and mirrored as its track says and every player shows
    them: pairs of a place, `frame` (from 0) and `seconds` (of what is live, since its first frame), and an RGB image.

    Args:
        source: as on top of this module.
        stride: every so many frames one is taken.

    Attributes:
        rate: frames per second that are taken, about.

    Raises:
        UserError: `source` is no video, there is no such camera, the stream does not answer, or the stride is below 1.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, source: str | Path, stride: int = 1) -> None:
        if stride < 1:
            raise UserError(f"--stride is {stride}; give 1 or more.")
        self.source, self.stride, self.live = source, stride, is_live(source)
        self.av = _av()
        try:
            self.container = self.av.open(**_opening(str(source), self.live))
        except (self.av.FFmpegError, ValueError, OSError) as error:
            raise self._unreadable(error) from error
        if not self.container.streams.video:
            self.container.close()
            raise UserError(f"{source} holds no images, only sound: give a video.")
        self.stream = self.container.streams.video[0]
        self.rate = (self.stream.average_rate or Fraction(25)) / stride

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Image.Image]]:
        """Raises UserError where the film is damaged, the stream breaks off, or no frame can be read."""
        number, first = -1, None
        try:
            for number, frame in enumerate(self.container.decode(self.stream)):
                seconds = float(frame.time or 0)
                first = seconds if first is None else first
                if number % self.stride == 0:
                    place = {"frame": number, "seconds": round(seconds - first if self.live else seconds, 3)}
                    yield place, _upright(frame)
        except self.av.FFmpegError as error:
            if self.live and number >= 0:
                sentence = f"{self.source} broke off after {number + 1} frames ({error.strerror}): start again."
                raise UserError(sentence) from error
            raise self._unreadable(error) from error
        finally:
            self.container.close()
        if number < 0:
            raise UserError(f"{self.source} has no frame that can be read: replace it.")

    def _unreadable(self, error: Exception) -> UserError:
        reason = getattr(error, "strerror", None) or str(error)
        if not self.live:
            return UserError(f"{self.source} cannot be read as a video ({reason}): replace it.")
        what = "camera" if self.source.isdecimal() or self.source.startswith("webcam:") else "stream"  # pyright: ignore
        return UserError(f"the {what} {self.source} cannot be read ({reason}): check that it is there and is on.")


def read_frames(source: str | Path, stride: int = 1) -> Iterator[tuple[dict[str, Any], Image.Image]]:
    """The `Frames` of a video."""
    yield from Frames(source, stride)


def count_frames(source: str | Path) -> int:
    """Frames of a video file, by its packets: nothing is decoded.

    Raises:
        BadFileError: the file is no video, or has no frame.
        MissingExtraError: PyAV is not installed.
    """
    with _film(source) as (container, stream):
        count = sum(packet.size > 0 for packet in container.demux(stream))
    if not count:
        raise BadFileError(f"{source} has no frame that can be read: replace it.")
    return count


def frames_at(source: str | Path, numbers: Collection[int]) -> dict[int, Image.Image]:
    """Frames of a video file by their numbers, upright, RGB; without those that it ends before, but then with its last.

    Raises:
        BadFileError: the file is no video, it is damaged, or no frame of it can be read.
    """
    found, last = {}, None
    with _film(source) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            last = number, frame
            if number in numbers:
                found[number] = _upright(frame)
            if len(found) == len(numbers):
                return found
    if last is None:
        raise BadFileError(f"{source} has no frame that can be read: replace it.")
    return {**found, last[0]: _upright(last[1])}


@contextmanager
def _film(source: str | Path) -> Iterator[tuple[Any, Any]]:
    av = _av()
    try:
        with av.open(str(source)) as container:
            if not container.streams.video:
                raise BadFileError(f"{source} holds no images, only sound: give a video.")
            yield container, container.streams.video[0]
    except av.FFmpegError as error:
        raise BadFileError(f"{source} cannot be read as a video ({error.strerror}): replace it.") from error


def frame_rate(source: str | Path) -> Fraction:
    """Frames per second of a video; errors as of `Frames`."""
    frames = Frames(source)
    frames.container.close()
    return frames.rate


class Newest:
    """Of items that come by themselves the newest one, whenever it is asked for; a thread takes the others away.

    Attributes:
        skipped: how many were taken away.
    """

    def __init__(self, items: Iterator[Any]) -> None:
        self.items, self.skipped = items, 0
        self.waiting: queue.Queue[Any] = queue.Queue(1)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._take, name="focalnet-live", daemon=True)

    def __iter__(self) -> Iterator[Any]:
        self.thread.start()
        try:
            while True:
                item, error = self.waiting.get()
                if error is not None:
                    raise error
                if item is None:
                    return
                yield item
        finally:
            self.stopped.set()

    def _take(self) -> None:
        error = None
        try:
            for item in self.items:
                if self.stopped.is_set():
                    return
                self._put(item, None)
        except Exception as caught:  # it is raised where the items are used
            error = caught
        told = False
        while not (told or self.stopped.is_set()):
            with suppress(queue.Full):
                self.waiting.put((None, error), timeout=0.2)  # the last item is not taken away
                told = True

    def _put(self, item: Any, error: Exception | None) -> None:
        with suppress(queue.Empty):
            self.waiting.get_nowait()
            self.skipped += 1
        self.waiting.put((item, error))


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
        self.shown = -1
        return self

    def write(self, image: Image.Image, seconds: float | None = None) -> None:
        """Add a frame, which is shown after so many seconds; without them, when the one before it is over."""
        if self.stream is None:
            self.stream = self.container.add_stream("mpeg4", rate=self.rate)
            self.stream.width, self.stream.height = (side - side % 2 for side in image.size)
            self.stream.bit_rate = 8_000_000
            self.stream.pix_fmt = "yuv420p"
        image = image.convert("RGB").crop((0, 0, self.stream.width, self.stream.height))
        frame = _av().VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
        if seconds is not None:
            self.shown = max(self.shown + 1, round(seconds * self.rate))
            frame.pts = self.shown
        self.container.mux(self.stream.encode(frame))

    def __exit__(self, *error: object) -> None:
        if self.stream is not None:
            self.container.mux(self.stream.encode())
        self.container.close()


def _upright(frame: Any) -> Image.Image:
    """A frame as its display matrix says: (x, y) is shown at (a x + c y, b x + d y), here to a quarter turn."""
    image, data = frame.to_image(), None
    with suppress(ValueError):  # what PyAV has no name for lies beside a damaged frame, or one of a newer encoder
        data = next((bytes(item) for item in frame.side_data if item.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return image
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    if turned := abs(b) + abs(c) > abs(a) + abs(d):
        image = image.transpose(Image.Transpose.TRANSPOSE)
    if (c if turned else a) < 0:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if (b if turned else d) < 0 else image


def _opening(source: str, live: bool) -> dict[str, Any]:
    """Arguments of `av.open`.

    Raises:
        UserError: a webcam on a system whose cameras are not known.
    """
    if not live or not (source.isdecimal() or source.startswith("webcam:")):
        return {"file": source, "timeout": (PATIENCE, PATIENCE) if "://" in source else None}
    name = source.removeprefix("webcam:")
    if sys.platform.startswith("linux"):
        return {"file": f"/dev/video{name}" if name.isdecimal() else name, "format": "v4l2"}
    if sys.platform == "darwin":
        return {"file": name, "format": "avfoundation", "options": {"framerate": "30"}}
    if sys.platform == "win32":
        if name.isdecimal():
            raise UserError(f"{source}: Windows knows cameras by name: give webcam:NAME, as the device manager has it.")
        return {"file": f"video={name}", "format": "dshow"}
    raise UserError(f"{source}: the cameras of {sys.platform} are not known; give an address or a file.")


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise MissingExtraError("Reading videos", "dense") from None
    return av
