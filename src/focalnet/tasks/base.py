"""What a task is: one model, its data, loss, metric and report, behind one interface.

The engine trains and evaluates a `Task` without knowing which one; the entry points predict with it. A task is a
frozen dataclass whose fields are its options: the command line makes its flags from them, and the run folder keeps
them. A new task is one file in this folder that defines one subclass of `Task`, with its options in `options`; or a
class from outside the package that is made known with `tasks.register`.

What a sample is, only a task knows: an image, a sound, a film. Tasks on images are `ImageTask`s.
"""

import dataclasses
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from PIL.Image import Image
from torch import Tensor

from focalnet.data.base import Datasets, Load, MapDataset, SplitName
from focalnet.data.register import formats_at, locate_source
from focalnet.data.survey import mean_and_std, reading, remarks
from focalnet.data.transforms.own import apply_transform
from focalnet.errors import UserError
from focalnet.inputs.image import Signal
from focalnet.tasks.batches import InBatches, Predicts
from focalnet.tasks.common_options import Embedded as Embedded
from focalnet.tasks.options import OPTIONS, ImageOptions, TaskOptions
from focalnet.tasks.parts import Part as Part
from focalnet.visualize.page import Section as Section
from focalnet.visualize.page import Shot as Shot
from focalnet.weights.sources import located
from focalnet.weights.spec import ModelSpec

log = logging.getLogger(__name__)

Network = Any
"""A torch module that carries its `ModelSpec` as `spec`."""
Batch = dict[str, Any]
"""A collated batch. The loader adds `index` (B,), each sample's place in its data set, -1 for what a metric is to
ignore (padding, stand-ins for samples that could not be read), and `skipped`, the paths of the latter."""


class Meaning(NamedTuple):
    """What a metric says.

    Attributes:
        name: what the field calls it.
        words: what it is, in words.
        group: the box of the report that it stands in.
    """

    name: str
    words: str = ""
    group: str = "Metrics"


class Metric(Protocol):
    """Metrics over a data set. `compute` and `details` are called in every process."""

    def update(self, model: Network, batch: Batch) -> None:
        """Run the model on a batch and take the results in."""
        ...

    def compute(self) -> dict[str, float]:
        """The metrics, over all processes."""
        ...

    def details(self) -> dict[str, Any]:
        """What the report shows besides: tables, matrices, the worst mistakes. JSON can hold it."""
        ...


class Prediction(Protocol):
    """What a model says of one sample."""

    def to_dict(self) -> dict[str, Any]:
        """The content, for JSON."""
        ...

    def summary(self) -> str:
        """The content, in one line."""
        ...

    def draw(self, signal: Any, /) -> Image:
        """A picture of the prediction: of an image, the image with the prediction on it."""
        ...

    def maps(self) -> dict[str, Image]:
        """What else can be kept as images, by name: a map of labels or ids."""
        ...


@dataclass(frozen=True, kw_only=True)
class Task(TaskOptions, Predicts, ABC):
    """The options and parts of a task. Subclasses add their own options.

    Class attributes:
        meanings: of the metrics, by their names in `Metric.compute`, in the order in which the report shows them.
    """

    meanings: ClassVar[Mapping[str, Meaning]] = {}

    def meaning(self, metric: str) -> Meaning:
        """What a metric says; of one that `meanings` lacks, its name."""
        return self.meanings.get(metric) or Meaning(metric.replace("_", " "))

    def commands(self, run: str) -> list[tuple[str, str]]:
        """What to type next with the folder of a run, quoted for a shell, and what each line does."""
        return [
            (f"focalnet predict {run} FILE", "predictions for other files"),
            (f"focalnet evaluate {run} --data FOLDER", "metrics on other data"),
        ]

    def check_num_classes(self, data: Datasets, mend: str) -> None:
        """Refuse data with another number of classes than was expected; `mend` says where to look.

        Raises:
            UserError: it has another number.
        """
        if self.num_classes not in (None, len(data.classes)):
            raise UserError(
                f"--num-classes is {self.num_classes}, but {self.data or self.embedded.data} has {len(data.classes)} "
                f"classes; leave the option out, or {mend}."
            )

    def located(self, *, recorded: bool = False) -> Self:
        """This task with its data and weights as they are found from any folder, which is how a run folder keeps them.

        Args:
            recorded: they were read from a run folder. A name is then taken for one of the hub only where it is marked
                as such.
        """
        weights = None if self.weights is None else located(self.weights, recorded=recorded)
        return dataclasses.replace(self, data=self.locate_data(recorded), weights=weights)

    def locate_data(self, recorded: bool) -> str | None:
        """The source of the data as it is found from any folder, see `located`."""
        return os.path.abspath(self.data) if self.data and os.path.exists(self.data) else self.data

    @abstractmethod
    def datasets(self, seed: int) -> Datasets:
        """Open the data; `seed` splits it where it is not split."""

    def groups(self, dataset: MapDataset) -> Sequence[int] | None:
        """A number per training sample, equal for those that fit into one batch well; None where all do."""
        return None

    def eval_batch_size(self, spec: ModelSpec, dataset: MapDataset, wish: int) -> int:
        """Samples per batch when evaluating on `dataset`."""
        return wish

    @abstractmethod
    def evaluation_data(self, spec: ModelSpec, split: SplitName | None = None) -> MapDataset:
        """The validation split of the data, or all of it where it has none, with the labels of a finished model.

        Args:
            spec: of the model.
            split: another one of its splits; no other needs to be there.

        Raises:
            UserError: the classes of data and model do not fit, or there is no such split.
        """

    @abstractmethod
    def build_model(self, data: Datasets) -> Network:
        """The network for the classes of `data`, with `weights` in it; it carries its `ModelSpec` as `spec`."""

    def load(self, spec: ModelSpec) -> Load:
        """How the files of training samples are decoded."""
        return spec.preprocessing.read

    @abstractmethod
    def example(self, spec: ModelSpec, sample: Any, *, train: bool) -> Any:
        """Decode and transform one sample. All randomness comes from torch's global generator."""

    def transformed(self, spec: ModelSpec, sample: Any, transform: Callable[..., Any]) -> Any:
        """A training sample after a transform of the caller's, before `example`.

        Raises:
            UserError: the transform gives something else than a sample needs, or the task has no place for one.
        """
        raise UserError(f"--task {self.name} has no place for a transform of your own; leave it out.")

    @abstractmethod
    def collate(self, spec: ModelSpec, examples: Sequence[Any], *, train: bool) -> Batch:
        """Make a batch of examples. All randomness comes from torch's global generator."""

    @abstractmethod
    def loss(self, model: Network, batch: Batch) -> Mapping[str, Tensor]:
        """Scalars, averaged over the batch; `loss` is the one that is minimized."""

    def own_loss(self, loss: Callable[..., Any], model: Network, batch: Batch) -> Mapping[str, Tensor]:
        """`loss`, computed by a function of the caller's from the network's outputs and the truth.

        Raises:
            UserError: the task has no place for one.
        """
        raise UserError(f"--task {self.name} has no place for a loss of your own; leave it out.")

    def parts(self, model: Network) -> Mapping[str, Part]:
        """The parts of the network that have an optimizer each, by name, in the order of their steps.

        One by default. A codec has two, its discriminators and its generator: in a step of the run each part in turn
        has its `part_loss` computed with the weights as they are by then, and only its own weights are changed.
        """
        return {"network": Part(model)}

    def shared(self, model: Network, batch: Batch) -> Batch:
        """A batch with what several parts need of it, computed once in a step, without gradients."""
        return batch

    def part_loss(self, part: str, model: Network, batch: Batch) -> Mapping[str, Tensor]:
        """`loss` for one of the `parts`."""
        return self.loss(model, batch)

    def remarks(self, spec: ModelSpec, dataset: MapDataset) -> list[str]:
        """What a user should know of how the samples of `dataset` are read for a network, a sentence each.

        Raises:
            UserError: they are none that it takes.
        """
        return []

    @abstractmethod
    def metric(self, spec: ModelSpec) -> Metric:
        """A fresh metric."""

    def tuned(self, spec: ModelSpec, metrics: Mapping[str, float], details: Mapping[str, Any]) -> ModelSpec:
        """The description of a network after an evaluation on validation data: what was chosen there stands in it."""
        return spec

    @abstractmethod
    def render(self, model: Network, dataset: MapDataset, details: Mapping[str, Any]) -> list[Section]:
        """The task's part of the report.

        Args:
            model: the evaluated network.
            dataset: what it was evaluated on.
            details: of the metric.
        """

    @abstractmethod
    def signal(self, sample: Any) -> tuple[str, Any]:
        """The name of a sample, and the signal in it, as the network's input reads it from a file."""


@dataclass(frozen=True, kw_only=True)
class ImageTask(ImageOptions, InBatches, Task):
    """A task on images."""

    def commands(self, run: str) -> list[tuple[str, str]]:
        return [
            (f"focalnet predict {run} IMAGE --draw drawn/", "predictions for an image or a folder, also drawn"),
            (f"focalnet explain {run} IMAGE", "where the network looks"),
            *super().commands(run)[1:],
        ]

    def locate_data(self, recorded: bool) -> str | None:
        return locate_source(self.kind, self.data, recorded=recorded)

    @contextmanager
    def telling_task(self) -> Iterator[None]:
        """Let an error of opening the data name the task that the data looks like, if it is another one."""
        try:
            yield
        except UserError as error:
            for row in formats_at(self.data, self.kind):
                for name, options in OPTIONS.items():
                    if options.kind in row.kinds:
                        raise UserError(f"{error} It looks like {row.words}: add --task {name}.") from error
            raise

    def check_image_size(self, model: Network) -> None:
        """Refuse images that are smaller than one position of the network's last stage.

        Raises:
            UserError: they are.
        """
        least = model.focalnet.config.strides[-1]
        size = model.spec.preprocessing.size
        if self.image_size is not None and min(size) < least:
            raise UserError(f"--image-size is {min(size)}; {self.model} needs {least} pixels or more.")

    def overrides(self) -> dict[str, Any]:
        """What the options say of the architecture, where they say something."""
        said = {"drop_path_rate": self.drop_path, "in_channels": self.channels}
        return {name: value for name, value in said.items() if value is not None}

    def fit_input(self, spec: ModelSpec, data: Datasets, **changes: Any) -> ModelSpec:
        """The spec of a network that sees images as the options say.

        Args:
            spec: of the network.
            data: whose training images give mean and std where they are asked for.
            changes: fields of `inputs.Image` besides, None for no change.

        Raises:
            UserError: another number of numbers than the images have channels.
        """
        changes |= {name: getattr(self, name) for name in ("range", "max_pixels", "mean", "std")}
        changes = {name: value for name, value in changes.items() if value is not None}
        for name in ("mean", "std"):
            if len(changes.get(name, spec.preprocessing.mean)) != spec.preprocessing.channels:
                raise UserError(
                    f"--{name} has {len(changes[name])} numbers, the images {spec.preprocessing.channels} channels: "
                    f"give one for each."
                )
        how = dataclasses.replace(spec.preprocessing, **changes)
        if self.normalize == "data" and self.mean is None:
            mean, std = mean_and_std(reading(data.train, how.read))
            log.info("pixels of the training images: mean %s, std %s", mean, std)
            how = dataclasses.replace(how, mean=mean, std=std)
        return spec.replace(preprocessing=how)

    def remarks(self, spec: ModelSpec, dataset: MapDataset) -> list[str]:
        return [] if self.data in (None, self.embedded.data) else remarks(dataset, spec.preprocessing)

    def signal(self, sample: Any) -> tuple[str, Signal]:
        return sample.path, sample.signal

    def seen(self, spec: ModelSpec, data: Datasets) -> ModelSpec:
        """`fit_input` with the options of this task."""
        return self.fit_input(spec, data)

    def augmented(self, spec: ModelSpec, sample: Any) -> Any:
        """A sample as training sees it, once. All randomness comes from torch's global generator."""
        return sample

    def draw_truth(self, sample: Any, classes: Sequence[str]) -> Image:
        """The image of a sample with what is known of it drawn on it."""
        return sample.signal.convert("RGB")

    def transformed(self, spec: ModelSpec, sample: Any, transform: Callable[..., Any]) -> Any:
        return apply_transform(sample, transform, spec.preprocessing.read)
