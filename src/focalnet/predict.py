"""Predictions for images, and whatever else a network takes: from Python (`Predictor`) and from the command line.

A network's input (`ModelSpec.preprocessing`) reads a source into a signal: an image file into an image. The task makes
predictions of signals. Only films are special: a network for images sees them frame by frame.
"""

import itertools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from torch import nn

from focalnet import inputs
from focalnet.data.survey import reading
from focalnet.engine.devices import Device, find_device
from focalnet.engine.evaluate import own_split
from focalnet.engine.record import load_run
from focalnet.engine.run import RunFolder
from focalnet.errors import UserError
from focalnet.inputs.files import find_files, find_images
from focalnet.inputs.image import Range, load_image
from focalnet.inputs.video import VideoWriter, frame_rate, is_video, read_frames
from focalnet.models.create import load_model
from focalnet.reading import defined
from focalnet.tasks import task_of
from focalnet.tasks.base import Network, Prediction
from focalnet.weights.sources import Source

if TYPE_CHECKING:
    from focalnet.tasks.results import ResultFormat, Writer
log = logging.getLogger(__name__)

__all__ = ["Predictor", "find_files", "find_images", "held_out", "is_video"]


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

    Raises:
        UserError: an option that the task of the model does not have, or a device that is not there.

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
    ) -> None:
        place = find_device(device)
        network: Network = model if isinstance(model, nn.Module) else load_model(os.fspath(model), weights)
        self.model = network.to(place).eval()
        self.task = task_of(network.spec)().with_options(threshold=threshold, window=window, detections=detections)
        self._reading = {"range": range, "max_pixels": max_pixels}
        self._remarked = False

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
        return self._predict([self.input.read(source)])[0]

    def _predict(self, signals: Sequence[Any]) -> list[Any]:
        if not self._remarked and isinstance(self.input, inputs.Image):
            for remark in self.input.remarks(signals):
                log.warning(remark)
        self._remarked = True
        return self.task.predict(self.model, signals)

    def stream(self, sources: Iterable[Any], batch_size: int = 16) -> Iterator[tuple[Any, Prediction]]:
        """Predictions for many sources, read as they are needed.

        Args:
            sources: as for one.
            batch_size: sources per forward pass, at most: large images go through it a few at a time.

        Yields:
            the signal (an RGB image) and its prediction, in order.

        Raises:
            UserError: a source that cannot be read, after the predictions for those before it.
        """
        for _, signal, prediction in self._stream((("", source) for source in sources), batch_size):
            yield signal, prediction

    def _stream(
        self, sources: Iterable[tuple[str, Any]], batch_size: int, unreadable: dict[str, UserError] | None = None
    ) -> Iterator[tuple[str, Any, Prediction]]:
        """Name, signal and prediction of every source; what cannot be read goes into `unreadable`, or is raised."""
        if batch_size < 1:
            raise UserError(f"--batch-size is {batch_size}; give 1 or more.")
        sources, broken = iter(sources), None
        while broken is None:
            batch: list[tuple[str, Any]] = []
            for name, source in sources:
                try:
                    batch.append((name, self.input.read(source)))
                except UserError as error:
                    if unreadable is None:
                        broken = error  # told after the predictions for the sources before it
                        break
                    unreadable[name] = error
                if len(batch) == batch_size:
                    break
            if not batch:
                break
            names, signals = zip(*batch, strict=True)
            yield from zip(names, signals, self._predict(signals), strict=True)
        if broken is not None:
            raise broken

    def video(
        self, source: str | Path, target: Path | None = None, batch_size: int = 16
    ) -> Iterator[tuple[dict[str, Any], Prediction]]:
        """Predictions for the frames of a video.

        Args:
            source: a video file.
            target: an .mp4 to write, with the predictions drawn on every frame.
            batch_size: frames per forward pass, at most.

        Yields:
            `frame` (from 0) and `seconds` of each frame, and its prediction.

        Raises:
            UserError: the file is no video, or the target cannot be written.
            MissingExtraError: PyAV is not installed.
        """
        frames = read_frames(source)
        with VideoWriter(target, frame_rate(source)) if target else nullcontext() as writer:
            while batch := list(itertools.islice(frames, batch_size)):
                predictions = self._predict([self.input.read(image) for _, image in batch])
                for (place, image), prediction in zip(batch, predictions, strict=True):
                    if writer:
                        writer.write(prediction.draw(image))
                    yield place, prediction

    def predictions(
        self,
        sources: Iterable[tuple[str, Any]],
        folder: Path | None = None,
        batch_size: int = 16,
        unreadable: dict[str, UserError] | None = None,
        keep: Callable[[str, Prediction], object] = lambda name, prediction: None,
    ) -> Iterator[tuple[dict[str, Any], str]]:
        """Predictions in words, for every source and every frame of a video.

        Args:
            sources: names with what they stand for: a source as for `stream`, or a video file.
            folder: where to write the drawings and maps, named by number and name; nothing is written without it.
            batch_size: sources per forward pass, at most.
            unreadable: takes in, by its name, what cannot be read, and why; the others get their predictions.
            keep: is given every prediction, with the name of its source, of a frame "VIDEO:NUMBER".

        Yields:
            an object for JSON, which names its `source` and the files written for it, and a line to read.

        Raises:
            UserError: without `unreadable`, a source that cannot be read, after the predictions for those before it.
        """
        number = itertools.count()
        for video, group in itertools.groupby(sources, key=lambda named: self._is_video(named[1])):
            if not video:
                for name, signal, prediction in self._stream(group, batch_size, unreadable):
                    row = _told(name, prediction)
                    keep(name, prediction)
                    files = _draw(prediction, signal, folder, _stem(number, name)) if folder else {}
                    yield {"source": name, **row, **files}, f"{name}  {prediction.summary()}"
                continue
            for name, source in group:
                target = folder / f"{_stem(number, name)}.mp4" if folder else None
                files = {"drawn": target.name} if target else {}
                try:
                    for place, prediction in self.video(source, target, batch_size):
                        frame = f"{name}:{place['frame']}"
                        row = _told(frame, prediction)
                        keep(frame, prediction)
                        yield (
                            {"source": name, **place, **row, **files},
                            f"{frame}  {prediction.summary()}",
                        )
                except UserError as error:
                    if unreadable is None:
                        raise
                    unreadable[name] = error

    def writer(self, kind: "ResultFormat", out: Path | None, stream: TextIO = sys.stdout) -> "Writer":
        """Takes in predictions of this model and writes them in a format of the field; see `tasks.results`.

        Args:
            kind: "csv", "coco" or "yolo".
            out: a file, for "yolo" a folder; None for `stream`.
            stream: where to print instead.

        Raises:
            UserError: the predictions of the task do not fit the format, or "yolo" has no folder.
        """
        from focalnet.tasks.dense import class_names
        from focalnet.tasks.results import category_ids, open_writer

        names = class_names(self.model.spec)
        ids = category_ids(names, self.model.spec.category_ids)
        return open_writer(kind, out, stream, task=self.task, classes=names, category_ids=ids)

    def _is_video(self, source: Any) -> bool:
        """Whether what a user wrote is a video file, by its suffix, for a network that takes images."""
        return self.input.kind == "image" and is_video(source)


def _told(name: str, prediction: Prediction) -> dict[str, Any]:
    """The content of a prediction.

    Raises:
        UserError: a number in it is none.
    """
    row = prediction.to_dict()
    if not defined(row):
        raise UserError(f"{name}: the network gives NaN; its weights are damaged or overflow: take other ones.")
    return row


def held_out(
    model: str,
    most: int = 16,
    load: Callable[..., Any] = load_image,
    unreadable: dict[str, UserError] | None = None,
) -> list[tuple[str, Any]]:
    """Names and signals (images) that a run was not trained on, spread over its validation split.

    Args:
        model: a run folder.
        most: how many, at most.
        load: reads an image.
        unreadable: takes in what cannot be read, and why; the others are then found all the same.

    Raises:
        UserError: `model` is no run folder.
    """
    if not (Path(model) / "metrics.jsonl").exists():
        raise UserError(f"{model} is no run folder with images of its own; name an image, folder, glob or URL.")
    run = RunFolder.open(model)
    task, config = load_run(run)
    dataset = reading(own_split(run, task, config, lambda: load_model(model, None).spec)[0], load)
    step = max(1, len(dataset) // most)
    found = []
    for index in range(0, len(dataset), step)[:most]:
        try:
            found.append(task.signal(dataset[index]))
        except UserError as error:
            if unreadable is None:
                raise
            unreadable[f"sample {index}"] = error
    return found


def _stem(number: Iterator[int], name: str) -> str:
    return f"{next(number):04d}_{re.sub(r'[^A-Za-z0-9]+', '_', Path(name).stem)}"


def _draw(prediction: Prediction, signal: Any, folder: Path, stem: str) -> dict[str, str]:
    """Write the drawing and the maps of one prediction; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    prediction.draw(signal).save(folder / f"{stem}.png")
    maps = prediction.maps()
    for kind, image in maps.items():
        image.save(folder / f"{stem}_{kind}.png")
    return {"drawn": f"{stem}.png", **{kind: f"{stem}_{kind}.png" for kind in maps}}
