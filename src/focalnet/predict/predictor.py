"""A model that takes images, or whatever its input is, and gives predictions.

A network's input (`ModelSpec.preprocessing`) reads a source into a signal: an image file into an image. The task makes
predictions of signals. Only films are special: a network for images sees them frame by frame.
"""

import copy
import itertools
import logging
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from torch import nn

from focalnet import inputs
from focalnet.engine.devices import Device, find_device
from focalnet.errors import UserError
from focalnet.inputs.ahead import MOST_THREADS, default_threads, in_order
from focalnet.inputs.image import Range
from focalnet.inputs.streaming import Item, predicted, usual_batch
from focalnet.inputs.video import Frames, Newest, VideoWriter, is_video
from focalnet.predict.precision import Precision, arithmetic, load
from focalnet.predict.tracking import LOW, Tracker, bytetrack, follow
from focalnet.predict.words import draw, stem, told
from focalnet.tasks import task_of
from focalnet.tasks.base import Network, Prediction
from focalnet.weights.files import checksum
from focalnet.weights.sources import Source

if TYPE_CHECKING:
    from focalnet.tasks.results import ResultFormat, Writer
log = logging.getLogger(__name__)


class Predictor:
    """A model that takes images, or whatever its input is, and gives predictions.

    Args:
        model: a run folder, a model folder, a hub id, a name with `weights`, or a model of `create_model`.
        weights: as in `create_model`, where `model` is a name.
        device: where to compute, for example "cuda:1"; without it, the GPU if there is one.
        threshold: least score of an object that a detector tells (without it what was best on its validation data, else
            0.5), or a panoptic segmenter (0.8).
        window: side in pixels of the overlapping squares in which a semantic segmenter sees an image; without it, it
            sees the whole.
        detections: most objects of an image that a detector tells; without it, what the network has.
        range: what the values of images with other than 8 bits mean; without it, what they meant in training.
        max_pixels: most pixels of an image; without it, Pillow's limit.
        precision: arithmetic of the network: "fp32"; "tf32", on NVIDIA GPUs; "bf16" or "fp16" where autocast deems
            them safe. Of an exported file: "fp32" for its own, or "bf16" of an .xml on a processor that has it.
        threads: how many decode and resize images ahead of the network and write drawings; without it, one per core;
            0 does it in turn.

    Raises:
        UserError: an option that the task of the model does not have, a device that is not there, or a precision that
            it does not have.

    Example:
        >>> predictor = focalnet.Predictor("runs/flowers")
        >>> predictor("tulip.jpg").label
        'tulip'
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module,
        *,
        weights: Source | None = None,
        device: Device = None,
        threshold: float | None = None,
        window: int | None = None,
        detections: int | None = None,
        range: Range | None = None,  # noqa: A002 - the name of the option
        max_pixels: int | None = None,
        precision: Precision = "fp32",
        threads: int | None = None,
    ) -> None:
        if threads is not None and not 0 <= threads <= MOST_THREADS:
            raise UserError(f"--threads is {threads}; give 0 to {MOST_THREADS}.")
        place = find_device(device)
        network: Network = model if isinstance(model, nn.Module) else load(os.fspath(model), weights, precision)
        self.model = network.to(place).eval()
        self.task = task_of(network.spec)().with_options(threshold=threshold, window=window, detections=detections)
        self._reading = {"range": range, "max_pixels": max_pixels}
        self._remarked = False
        self._threads = default_threads() if threads is None else threads
        self._precision: Precision = precision
        self._arithmetic = arithmetic(network, precision, place)

    @property
    def input(self) -> inputs.Input:
        """How the network reads and takes a source."""
        return inputs.changed(self.model.spec.preprocessing, **self._reading)

    def __call__(self, source: Any) -> Any:
        """The prediction for one source.

        Args:
            source: of an image a path, an address, bytes, an open file, a PIL image, an array (H, W, 3) or (H, W), RGB
                or grey, or a tensor (3, H, W); uint8, uint16 or floats.

        Raises:
            UserError: it cannot be read, or is nothing of these.
        """
        return self._predict([self.task.read(self.input, source)])[0]

    def _predict(self, signals: Sequence[Any], prepared: Sequence[Any] | None = None) -> list[Any]:
        if not self._remarked and isinstance(self.input, inputs.Image):
            for remark in self.input.remarks(signals):
                log.warning(remark)
        self._remarked = True
        with self._arithmetic():
            if prepared is None:
                return self.task.predict(self.model, signals)
            return self.task.predict_prepared(self.model, signals, prepared)

    def stream(self, sources: Iterable[Any], batch_size: int | None = None) -> Iterator[tuple[Any, Prediction]]:
        """Predictions for many sources, read by threads ahead of the network, and never more than a few at a time.

        Args:
            sources: as for one. An iterator is taken from as the predictions are.
            batch_size: sources per forward pass, at most: large images go through it a few at a time. Images that are
                of one size for the network share forward passes. Without it 16, and up to 64 where the network sees
                less than 224 x 224 pixels. With 1, a source is taken when the one before it has its prediction.

        Yields:
            the signal (an RGB image) and its prediction, in order.

        Raises:
            UserError: a source that cannot be read, after the predictions for those before it.
        """
        for _, signal, prediction in self._stream((("", source) for source in sources), batch_size):
            yield signal, prediction

    def _stream(
        self, sources: Iterable[tuple[Any, Any]], batch_size: int | None, unreadable: dict[str, UserError] | None = None
    ) -> Iterator[tuple[Any, Any, Prediction]]:
        """Tag, signal and prediction of every source; what cannot be read goes into `unreadable` by its tag, or is
        raised. With a batch size of 1, a source is taken when the one before it has its prediction."""
        how = self.input

        def read(source: Any) -> tuple[Any, Any]:
            signal = self.task.read(how, source)
            return signal, self.task.prepare(self.model.spec, signal)

        def predict(batch: list[Item]) -> None:
            answers = self._predict([item.signal for item in batch], [item.prepared for item in batch])
            for item, answer in zip(batch, answers, strict=True):
                item.prediction = answer

        for item in predicted(
            sources, read, predict, batch_size=usual_batch(how) if batch_size is None else batch_size,
            threads=self._threads, device=next(self.model.parameters()).device, unreadable=unreadable,
        ):  # fmt: skip
            yield item.tag, item.signal, item.prediction

    def video(
        self,
        source: str | Path,
        target: Path | None = None,
        batch_size: int | None = None,
        *,
        stride: int = 1,
        track: bool | Tracker = False,
    ) -> Iterator[tuple[dict[str, Any], Prediction]]:
        """Predictions for the frames of a film, a camera or a stream.

        Args:
            source: a video file or its address; "webcam:0", or an address of RTSP and the like: these are live, have no
                end, and the newest frame is taken whenever the network is free.
            target: an .mp4 to write, with the predictions drawn on every frame; it is whole however this ends.
            batch_size: frames per forward pass, at most, as for `stream`; of what is live it is 1.
            stride: every so many frames one is taken.
            track: give the objects of a detector numbers, by ByteTrack or by another tracker; see `predict.tracking`.

        Yields:
            `frame` (from 0) and `seconds` of each frame, and its prediction.

        Raises:
            UserError: the source is no video, there is no such camera, the target cannot be written, or only detectors
                have objects to track.
            MissingExtraError: PyAV or trackers is not installed.
        """
        frames = Frames(source, stride)
        answers = self._stream if track is False else self._tracked(None if track is True else track, frames.rate)
        taken: Any = Newest(iter(frames)) if frames.live else frames
        batch_size = 1 if frames.live else batch_size
        try:
            with VideoWriter(target, frames.rate) if target else nullcontext() as writer:
                for (place, image), _, prediction in answers(((frame, frame[1]) for frame in taken), batch_size):
                    if writer:
                        writer.write(prediction.draw(image), place["seconds"] if frames.live else None)
                    yield place, prediction
        finally:
            if frames.live:
                log.info("%s: %d frames came faster than the network and were left out", source, taken.skipped)

    def _tracked(self, tracker: Tracker | None, rate: Fraction) -> Callable[..., Iterator[tuple[Any, Any, Any]]]:
        """`_stream` for frames, whose objects get the numbers of their tracks."""
        if not self.task.has_results:
            raise UserError(f"--track follows the objects of detectors; leave it out for {self.task.name}.")
        task: Any = self.task
        threshold: float = task.least_score(self.model.spec)
        following = bytetrack(threshold, rate) if tracker is None else tracker
        low = copy.copy(self)
        low.task = task.with_options(threshold=min(LOW, threshold))

        def answers(sources: Any, batch_size: int | None) -> Iterator[tuple[Any, Any, Any]]:
            for tag, signal, prediction in low._stream(sources, batch_size):
                yield tag, signal, follow(following, prediction, threshold)

        return answers

    def predictions(
        self,
        sources: Iterable[tuple[str, Any]],
        folder: Path | None = None,
        batch_size: int | None = None,
        unreadable: dict[str, UserError] | None = None,
        keep: Callable[[str, Prediction, Mapping[str, Any]], object] = lambda name, prediction, place: None,
        *,
        first: int = 0,
        stride: int = 1,
        track: bool = False,
    ) -> Generator[tuple[dict[str, Any], str], None, None]:
        """Predictions in words, for every source and every frame of a video.

        Args:
            sources: names with what they stand for: a source as for `stream`, or a video, camera or stream.
            folder: where to write the drawings and maps, named by number and name; nothing is written without it.
            batch_size: sources per forward pass, at most, as for `stream`.
            unreadable: takes in, by its name, what cannot be read, and why; the others get their predictions.
            keep: is given every prediction, with the name of its source, of a frame "VIDEO:NUMBER", and of a frame with
                its place, as of `video`.
            first: the number of the first drawing.
            stride, track: of videos, as for `video`.

        Yields:
            an object for JSON, which names its `source` and the files written for it, and a line to read.

        Raises:
            UserError: without `unreadable`, a source that cannot be read, after the predictions for those before it.
        """
        number = itertools.count(first)

        def known(group: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any, Prediction, dict[str, Any], str]]:
            for name, signal, prediction in self._stream(group, batch_size, unreadable):
                row = told(name, prediction)
                keep(name, prediction, {})
                yield name, signal, prediction, row, stem(number, name)

        def write(one: tuple[str, Any, Prediction, dict[str, Any], str]) -> tuple[dict[str, Any], str]:
            name, signal, prediction, row, called = one
            files = draw(prediction, signal, folder, called) if folder else {}
            return {"source": name, **row, **files}, f"{name}  {prediction.summary()}"

        threads = self._threads if folder and batch_size != 1 else 0  # to pack a PNG takes longer than many networks
        for video, group in itertools.groupby(sources, key=lambda named: self._is_video(named[1])):
            if not video:
                yield from in_order(known(group), write, threads=threads, ahead=2 * threads)
                continue
            for name, source in group:
                target = folder / f"{stem(number, name)}.mp4" if folder else None
                files = {"drawn": target.name} if target else {}
                try:
                    for place, prediction in self.video(source, target, batch_size, stride=stride, track=track):
                        frame = f"{name}:{place['frame']}"
                        row = told(frame, prediction)
                        keep(frame, prediction, place)
                        yield (
                            {"source": name, **place, **row, **files},
                            f"{frame}  {prediction.summary()}",
                        )
                except UserError as error:
                    if unreadable is None:
                        raise
                    unreadable[name] = error

    def made_by(self) -> dict[str, Any]:
        """What the predictions depend on, for JSON: a checksum of the weights, and the options that change answers."""
        options = {name: getattr(self.task, name, None) for name in ("threshold", "window", "detections")}
        if least := getattr(self.task, "least_score", None):
            options["threshold"] = least(self.model.spec)
        how = {**inputs.to_dict(self.input), "max_pixels": self._reading["max_pixels"]}
        facts = {"weights": checksum(self.model), "task": self.task.name, **options, "input": how}
        return {**facts, "precision": self._precision}

    def writer(self, kind: "ResultFormat", out: Path | None, stream: TextIO = sys.stdout) -> "Writer":
        """Takes in predictions of this model and writes them in a format of the field; see `tasks.results`.

        Args:
            kind: "csv", "coco", "yolo" or "counts".
            out: a file, for "yolo" a folder; None for `stream`.
            stream: where to print instead.

        Raises:
            UserError: the predictions of the task do not fit the format, or "yolo" has no folder.
        """
        from focalnet.tasks.figures import class_names
        from focalnet.tasks.results import category_ids, open_writer

        names = class_names(self.model.spec)
        ids = category_ids(names, self.model.spec.category_ids)
        return open_writer(kind, out, stream, task=self.task, classes=names, category_ids=ids)

    def _is_video(self, source: Any) -> bool:
        """Whether what a user wrote is a video file, by its suffix, for a network that takes images."""
        return self.input.kind == "image" and is_video(source)
