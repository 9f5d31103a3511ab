"""What the options of all tasks begin with; see `options`."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

from focalnet.errors import UserError
from focalnet.models.registry import families, get_family, parse_name
from focalnet.schemas import check_numbers
from focalnet.variants import Recompute


class Embedded(NamedTuple):
    """What a task trains without `--data`."""

    data: str
    recipe: str
    model: str


def default_model(task: str, variant: str) -> str:
    """Name of the first family that serves a task, on this variant."""
    return f"{families(task=task)[0].name}_{variant}"


def check_task(task: str, model: str) -> None:
    """Refuse a network that a task does not train; of tasks from outside the package, nothing is known.

    Raises:
        UserError: the message names one that it does.
    """
    wanted, fitting = parse_name(model), [family.name for family in families(task=task)]
    if fitting and wanted.head not in fitting:
        first = get_family(fitting[0])
        example = f"{first.name}_{wanted.variant}" if first.named else wanted.variant
        raise UserError(
            f"{model} is a {wanted.head}, and --task {task} trains {' or '.join(fitting)}; take for example "
            f"--model {example}."
        )


def check_threshold(value: float) -> None:
    """Refuse what is no score."""
    if not 0 <= value <= 1:
        raise UserError(f"--threshold is {value}; give a score from 0 to 1.")


def check_mixing(alphas: tuple[float, float]) -> None:
    """Refuse alphas of mixup and cutmix below 0."""
    if min(alphas) < 0:
        raise UserError(f"--mixing is {' '.join(map(str, alphas))}; give two numbers, 0 or more.")


def check_labels(smoothing: float, weights: str | tuple[float, ...] | None) -> None:
    """Refuse shares and weights of classes that are none."""
    if not 0 <= smoothing < 1:
        raise UserError(f"--label-smoothing is {smoothing}; give a share from 0 up to, not including, 1.")
    if isinstance(weights, tuple) and not (min(weights, default=0) > 0):
        raise UserError(f"--class-weights is {weights}; give balanced, or a number above 0 per class.")


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options of every task.

    Class attributes:
        name: what the command line calls it.
        score: the metric of `Metric.compute` that chooses the best checkpoint; higher is better.
        embedded: the data set that needs no download: its name, its recipe, and the model that learns it.
        recipe: of any other data, from released weights.
        scratch: its recipe without weights; `recipe` where there is none.
        small: the network that learns on a CPU, `--model small`; that of `embedded` where there is none.
        has_results: whether `Metric.details` has `results`, the single predictions in a format of the field.
        written: endings of the files that each of its predictions can be written as (`written(ending)`).
    """

    name: ClassVar[str]
    score: ClassVar[str]
    embedded: ClassVar[Embedded]
    recipe: ClassVar[str]
    scratch: ClassVar[str | None] = None
    small: ClassVar[str | None] = None
    has_results: ClassVar[bool] = False
    written: ClassVar[tuple[str, ...]] = ()

    data: str | None = None
    """What to train on; without it, what is made of the handwritten digits inside scikit-learn."""
    model: str = "focalnet_tiny_lrf"
    """The network: a name from `focalnet models`, or "small" for one that a CPU trains."""
    weights: str | None = None
    """Where to start: "official", "timm", "transformers", a file, a run folder, a hub id, or None for random."""
    num_classes: int | None = None
    """How many classes you expect; the run stops when the data has another number."""
    val_fraction: float = 0.2
    """Share of the samples set aside for validation when the data has no split of its own."""
    freeze: int | Literal["backbone"] | None = None
    """What keeps its weights: "backbone", or a number of stages, the stem and the first of them."""
    drop_path: float | None = None
    """Stochastic depth of the last block; without it, the variant's own."""
    recompute: Recompute = "none"
    """Save memory by computing again in the backward pass: "context" the focal levels, "block" whole blocks."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 < self.val_fraction < 1:
            raise UserError(f"--val-fraction is {self.val_fraction}; give a share between 0 and 1.")
        if self.drop_path is not None and not 0 <= self.drop_path < 1:
            raise UserError(f"--drop-path is {self.drop_path}; give a rate from 0 up to, but not including, 1.")
        if self.freeze is not None and self.weights is None:
            raise UserError("--freeze keeps the backbone as it is, which is random without --weights: give both.")
        if isinstance(self.freeze, int) and self.freeze < 1:
            raise UserError(f"--freeze is {self.freeze}; give a number of stages, 1 or more, or backbone.")

    def with_options(self, **options: Any) -> Self:
        """This task with those of `options` that are not None.

        Raises:
            UserError: it has no such option.
        """
        given = {name: value for name, value in options.items() if value is not None}
        for name in given:
            if not hasattr(self, name):
                raise UserError(f"{self.name} has no {name.replace('_', ' ')}; leave it out.")
        return dataclasses.replace(self, **given)
