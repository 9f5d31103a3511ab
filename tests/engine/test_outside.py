"""What others add from outside the package: a kind of input, a task, an optimizer and a schedule, in one small run."""

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_resume import assert_same_run
from torch import nn

from focalnet import inputs, tasks
from focalnet.engine import optim
from focalnet.engine import train as engine
from focalnet.engine.config import TrainConfig
from focalnet.engine.evaluate import evaluate
from focalnet.engine.optim import OPTIMIZERS, SCHEDULES, Optimizer, Schedule
from focalnet.engine.run import RunFolder
from focalnet.engine.train import resume, train
from focalnet.engine.training import Training
from focalnet.errors import UserError
from focalnet.models.create import create_model
from focalnet.predict import Predictor, find_files, held_out
from focalnet.tasks import base, get_task, list_tasks

SIDE = 32


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Text files of numbers, one for every row of a map."""

    kind: ClassVar[str] = "grid"
    suffixes: ClassVar[frozenset[str]] = frozenset({".grid"})

    scale: float = 1.0

    def read(self, source):
        if isinstance(source, list):
            return source
        try:
            with open(source) as file:
                return [float(line) for line in file]
        except (OSError, ValueError) as error:
            raise UserError(f"{source} cannot be read as a grid ({error}).") from error

    def __call__(self, signal):
        return torch.tensor(signal).mul(self.scale)[None, :, None].expand(3, SIDE, SIDE)


class Grids:
    """Low numbers and high numbers, each with its name."""

    def __init__(self, indices):
        self.indices = indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        number = self.indices[index]
        values = torch.rand(SIDE, generator=torch.Generator().manual_seed(number)) + number % 2
        return f"{number}.grid", values.tolist(), number % 2


@dataclass(frozen=True)
class Level:
    """low or high."""

    name: str

    def to_dict(self):
        return {"level": self.name}

    def summary(self):
        return self.name

    def draw(self, signal):
        return Image.new("L", (SIDE, len(signal)))

    def maps(self):
        return {}


class LevelMetric:
    """Share of the samples whose level is told."""

    def __init__(self):
        self.hits, self.count = 0, 0

    def update(self, model, batch):
        levels = model(batch["signals"]).argmax(-1)
        self.hits += int((levels == batch["labels"]).sum())
        self.count += len(levels)

    def compute(self):
        return {"right": self.hits / self.count}

    def details(self):
        return {}


@dataclass(frozen=True, kw_only=True)
class Levels(base.Task):
    """Tells low grids from high ones. It has no images, and no option about them."""

    name: ClassVar[str] = "levels"
    score: ClassVar[str] = "right"
    embedded: ClassVar[base.Embedded] = base.Embedded("grids", "digits", "minifocal_32")
    recipe: ClassVar[str] = "digits"

    model: str = "minifocal_32"
    noise: float = 0.1

    def datasets(self, seed):
        return base.Datasets(("low", "high"), Grids(range(16)), Grids(range(16, 24)), "24 grids.")

    def evaluation_data(self, spec):
        return Grids(range(16, 24))

    def build_model(self, data):
        model = create_model(self.model, weights=self.weights, classes=data.classes)
        model.spec = model.spec.replace(preprocessing=Grid(scale=0.5), task=self.name)
        return model

    def example(self, spec, sample, *, train):
        signal = spec.preprocessing(sample[1])
        return signal + self.noise * torch.randn(()) * train, sample[2]

    def collate(self, spec, examples, *, train):
        signals, labels = zip(*examples, strict=True)
        return {"signals": torch.stack(signals), "labels": torch.tensor(labels)}

    def loss(self, model, batch):
        return {"loss": F.cross_entropy(model(batch["signals"]), batch["labels"])}

    def metric(self, spec):
        return LevelMetric()

    def render(self, model, dataset, details):
        return [base.Section("Levels", "There are two.")]

    def signal(self, sample):
        return sample[:2]

    def predict(self, model, signals):
        with torch.inference_mode():
            scores = model(torch.stack([model.spec.preprocessing(signal) for signal in signals]))
        return [Level(model.spec.classes[index]) for index in scores.argmax(-1).tolist()]


@dataclass(frozen=True, kw_only=True)
class Duel(Levels):
    """`Levels` as a game of two: the head wants to tell them apart, the rest of the network wants the same and small
    features. Each has an optimizer of its own."""

    name: ClassVar[str] = "duel"

    def parts(self, model):
        rest = nn.ModuleList([model.patch_embed, model.layers, model.norm])
        head = {"optimizer": "momentum", "optimizer_options": {"momentum": 0.5}, "lr": 0.1, "clip_grad": 1.0}
        return {
            "head": base.Part(model.head, head),
            "rest": base.Part(rest, {"optimizer": "adamw", "optimizer_options": {}}),
        }

    def part_loss(self, part, model, batch):
        loss = self.loss(model, batch)["loss"]
        if part == "rest":
            loss = loss + model.forward_features(batch["signals"]).square().mean()
        return {"loss": loss}


@dataclass(frozen=True, kw_only=True)
class MomentumOptions:
    momentum: float = 0.9


def momentum(network, groups, lr, options):
    return torch.optim.SGD(groups, lr=lr, momentum=options.momentum)


def halved(place, peak, end, options):
    return peak if place.progress < 0.5 else end


@pytest.fixture(autouse=True)
def added():
    """The additions, for one test."""
    registers = [inputs.INPUTS, OPTIMIZERS, SCHEDULES, tasks._REGISTERED]
    before = [dict(register) for register in registers]
    inputs.register(Grid)
    tasks.register(Levels)
    tasks.register(Duel)
    optim.register(Optimizer(name="momentum", build=momentum, options=MomentumOptions))
    optim.register(Schedule(name="halved", rate=halved))
    yield
    for register, content in zip(registers, before, strict=True):
        register.clear()
        register.update(content)


def options(**changes):
    values = {
        "epochs": 2, "batch_size": 4, "accumulate": 2, "lr": 0.01, "warmup_epochs": 0, "workers": 0, "ema": 0.5,
        "optimizer": "momentum", "optimizer_options": {"momentum": 0.8}, "schedule": "halved",
    }  # fmt: skip
    return TrainConfig(**{**values, **changes})


class KilledError(Exception):
    """The process is gone."""


def killed_and_resumed(task, config, out, monkeypatch):
    """A run that stops in the middle of its second epoch, with a checkpoint after every step."""
    original, calls = Training.step, []

    def step(self, *arguments):
        calls.append(arguments)
        if len(calls) == 7:
            raise KilledError
        return original(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(engine, "SAVE_AT", 1)
        patched.setattr(engine, "_agreed", lambda *_: True)
        patched.setattr(Training, "step", step)
        with pytest.raises(KilledError):
            train(task, config, out)
    assert not (out / "evaluation.json").exists()
    return resume(out)


@pytest.mark.parametrize("task", [Levels(), Duel()], ids=lambda task: task.name)
def test_a_run_is_trained_resumed_evaluated_and_predicted_with(task, tmp_path, monkeypatch):
    assert task.name in list_tasks()
    assert get_task(task.name) is type(task)
    whole = train(task, options(), tmp_path / "whole")
    killed = killed_and_resumed(task, options(), tmp_path / "killed", monkeypatch)
    assert_same_run(whole.path, killed.path)

    record = whole.config()
    assert record["data"] == {"training samples": 16, "validation samples": 8, "classes": ["low", "high"]}
    assert record["train"]["optimizer_options"] == {"momentum": 0.8}
    assert not any("image" in name for name in record["task"])
    rows = whole.rows()
    assert [row["lr"] for row in rows] == [0.01, options().min_lr]
    assert all(row["samples_per_second"] > 0 and row["val_samples_per_second"] > 0 for row in rows)
    best = max(row["right"] for row in rows)
    assert json.loads((whole.path / "evaluation.json").read_text())["metrics"]["right"] == best
    assert evaluate(str(whole.path), workers=0)["right"] == best

    (tmp_path / "deep").mkdir()
    for number, values in enumerate(([0.1] * SIDE, [1.9] * SIDE)):
        (tmp_path / "deep" / f"{number}.grid").write_text("\n".join(map(str, values)))
    (tmp_path / "deep" / "x.png").write_text("no grid")
    predictor = Predictor(whole.path)
    assert (predictor.input, predictor.task) == (Grid(scale=0.5), type(task)())
    files = find_files([str(tmp_path)], predictor.input.kind)
    assert files == [str(tmp_path / "deep" / f"{number}.grid") for number in (0, 1)]
    rows = [row for row, _ in predictor.predictions([(file, file) for file in files], tmp_path / "drawn")]
    assert [row["drawn"] for row in rows] == ["0000_0.png", "0001_1.png"]
    assert {row["level"] for row in rows} <= {"low", "high"}
    assert predictor([0.1] * SIDE).name == rows[0]["level"]
    assert [name for name, _ in held_out(str(whole.path), 4)] == ["16.grid", "18.grid", "20.grid", "22.grid"]
    with pytest.raises(UserError, match=r"x\.png cannot be read as a grid"):
        predictor(tmp_path / "deep" / "x.png")


def test_each_part_is_moved_by_its_own_optimizer(tmp_path):
    run = train(Duel(), options(), tmp_path / "run")
    state = torch.load(run.path / "last" / "state.pt")
    head, rest = state["optimizers"]["head"], state["optimizers"]["rest"]
    assert {name.partition(".")[0] for name in head["state"]} == {"head"}
    assert {name.partition(".")[0] for name in rest["state"]} == {"patch_embed", "layers", "norm"}
    assert {"momentum_buffer"} == {key for values in head["state"].values() for key in values}
    assert {group["momentum"] for group in head["param_groups"]} == {0.5}
    row = run.rows()[-1]
    assert row["train_loss"] == pytest.approx(row["train_loss_head"] + row["train_loss_rest"])
    assert row["train_loss_rest"] > row["train_loss_head"]


def test_parts_take_their_steps_in_order_and_leave_the_others_alone():
    from focalnet.engine.devices import build_accelerator

    class Watched(Duel):
        def part_loss(self, part, model, batch):
            seen.append((part, {name: value.detach().clone() for name, value in model.state_dict().items()}))
            return super().part_loss(part, model, batch)

    seen, task = [], Watched()
    model = task.build_model(task.datasets(0))
    training = Training(task, model, options(accumulate=1, ema=0.0), build_accelerator())
    samples = [task.example(model.spec, sample, train=False) for sample in (Grids(range(4))[i] for i in range(4))]
    batch = task.collate(model.spec, samples, train=True)
    training.step(iter([{**batch, "skipped": []}]), 0, 4)
    (first, before), (second, between) = seen
    assert (first, second) == ("head", "rest")
    moved = [name for name in before if not torch.equal(before[name], between[name])]
    assert moved
    assert all(name.startswith("head.") for name in moved)
    after = model.state_dict()
    moved = [name for name in between if not torch.equal(between[name], after[name])]
    assert moved
    assert not any(name.startswith("head.") for name in moved)


def test_checkpoints_of_the_time_of_one_optimizer_are_loaded(tmp_path, monkeypatch):
    whole = train(Levels(), options(), tmp_path / "whole")
    save = torch.save

    def as_before(state, file):
        state = dict(state)
        state["optimizer"] = state.pop("optimizers")["network"]
        state["position"] = {name: value for name, value in state["position"].items() if name != "part_sums"}
        save(state, file)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", as_before)
        train(Levels(), options(epochs=1), tmp_path / "old")
    run = RunFolder.open(tmp_path / "old")
    assert "optimizers" not in torch.load(run.path / "last" / "state.pt")
    record = run.config()
    run.write_config({**record, "train": dataclasses.asdict(options())})
    (run.path / "evaluation.json").unlink()
    assert resume(run.path).rows()[-1]["step"] == whole.rows()[-1]["step"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"optimizer": "momentun"}, "There is no optimizer 'momentun'; did you mean 'momentum'"),
        ({"schedule": "halve"}, "There is no schedule 'halve'; did you mean 'halved'"),
        ({"optimizer_options": {"momentun": 1}}, "no option of the optimizer 'momentum' 'momentun'"),
        ({"schedule_options": {"milestones": (1,)}}, "no option of the schedule 'halved' 'milestones'"),
    ],
)
def test_what_nobody_added_is_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        options(**change)
