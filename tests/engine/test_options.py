"""Freezing, class weights and early stopping, as a run does them: on whole runs, exact when they are resumed."""

import pytest
import torch
from safetensors.torch import load_file

from class_files import dark_and_light
from focalnet.engine.config import TrainConfig
from focalnet.engine.train import resume, train
from focalnet.engine.training import Training
from focalnet.errors import UserError
from focalnet.models.create import create_model
from focalnet.models.publish import save_pretrained
from focalnet.tasks.classify import Classify

BASE = {
    "batch_size": 4,
    "train_sample": 0,
    "workers": 0,
    "precision": "fp32",
    "lr": 1e-3,
    "warmup_epochs": 0.0,
    "ema": 0.5,
}


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """A report costs more than these runs."""
    done = lambda run, *_: (run.path / "evaluation.json").touch()  # noqa: E731
    monkeypatch.setattr("focalnet.engine.train.write_run_report", done)
    monkeypatch.setattr("focalnet.engine.report.LiveReport.write", lambda *_: None)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Twelve dark images and four light ones."""
    return dark_and_light(tmp_path_factory.mktemp("images"), (33, 35), dark=12, light=4)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A network of other classes to start from."""
    folder = tmp_path_factory.mktemp("weights") / "start"
    torch.manual_seed(0)
    save_pretrained(create_model("minifocal_32", classes=["a", "b", "c"]), folder)
    return folder


def run(images, out, config, **options):
    task = Classify(data=str(images), model="minifocal_32", augment="none", **options)
    return train(task, TrainConfig(**{**BASE, **config}), out)


def interrupted(images, out, config, monkeypatch, after, **options):
    """The same run, stopped in the middle of an epoch after some steps, and resumed."""
    monkeypatch.setattr("focalnet.engine.train.SAVE_AT", 1)
    monkeypatch.setattr("focalnet.engine.train._agreed", lambda *_: True)
    original, calls = Training.step, []

    def step(self, *arguments):
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", step)
        with pytest.raises(KeyboardInterrupt):
            run(images, out, config, **options)
    return resume(out)


def weights_of(folder, checkpoint="last"):
    return load_file(folder.path / checkpoint / "model.safetensors")


def assert_same(one, other):
    mine, theirs = weights_of(one), weights_of(other)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    drop = {"seconds", "samples_per_second", "val_samples_per_second"}
    rows = [[{k: v for k, v in row.items() if k not in drop} for row in folder.rows()] for folder in (one, other)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("freeze", "trained"), [("backbone", {"head."}), (3, {"head.", "norm.", "layers.3."})])
def test_frozen_parts_keep_their_weights_and_have_no_state(images, start, tmp_path, monkeypatch, freeze, trained):
    options = {"weights": str(start), "freeze": freeze, "drop_path": 0.5}
    whole = run(images, tmp_path / "whole", {"epochs": 2}, **options)
    before, after = load_file(start / "model.safetensors"), weights_of(whole)
    for name in before:
        moved = after[name].shape != before[name].shape or not torch.equal(after[name], before[name])
        assert moved == name.startswith(tuple(trained)), name
    state = torch.load(whole.path / "last" / "state.pt")["optimizers"]["network"]["state"]
    assert all(name.startswith(tuple(trained)) for name in state)
    again = interrupted(images, tmp_path / "again", {"epochs": 2}, monkeypatch, 5, **options)
    assert_same(whole, again)


def test_frozen_parts_stay_in_evaluation_mode():
    model = create_model("minifocal_32", num_classes=3, drop_path_rate=0.5)
    model.freeze(2)
    model.train()
    assert [stage.training for stage in model.layers] == [False, False, True, True][: len(model.layers)]
    assert not model.patch_embed.training
    assert model.head.training
    model.freeze()
    model.train()
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == [
        "head.weight",
        "head.bias",
    ]


def test_what_cannot_be_frozen(images, start, tmp_path):
    with pytest.raises(UserError, match="--freeze keeps the backbone as it is, which is random without --weights"):
        Classify(freeze="backbone")
    with pytest.raises(UserError, match="--freeze is 9; give a number of stages from 1 to"):
        run(images, tmp_path / "run", {"epochs": 1}, weights=str(start), freeze=9)
    assert not (tmp_path / "run").exists()


def test_balanced_classes_count_alike(images, tmp_path, monkeypatch):
    task = Classify(data=str(images), model="minifocal_32", class_weights="balanced", augment="none")
    data = task.datasets(0)
    model = task.build_model(data).eval()
    counts = torch.tensor(data.train.labels).bincount()
    assert model.class_weights.mul(counts).tolist() == pytest.approx([len(data.train) / 2] * 2)
    assert "class_weights" not in model.state_dict()
    # two images of one loss each: the mean of the weights is what is left
    batch = {"images": torch.zeros(2, 3, 32, 32), "targets": torch.tensor([[0.95, 0.05], [0.05, 0.95]])}
    with torch.no_grad():
        each = torch.stack([model.loss(batch["images"][:1], target[None])["loss"] for target in batch["targets"]])
        assert task.loss(model, batch)["loss"].item() == pytest.approx((each * model.class_weights).mean().item())
    config = {"epochs": 2}
    whole = run(images, tmp_path / "whole", config, class_weights="balanced")
    assert whole.config()["task"]["class_weights"] == "balanced"
    assert_same(whole, interrupted(images, tmp_path / "again", config, monkeypatch, 5, class_weights="balanced"))


def test_class_weights_of_your_own(images, tmp_path):
    model = Classify(data=str(images), model="minifocal_32", class_weights=(1.0, 3.0))
    assert model.build_model(model.datasets(0)).class_weights.tolist() == [1.0, 3.0]
    with pytest.raises(UserError, match=r"--class-weights has 3 numbers for 2 classes.*dark, light"):
        run(images, tmp_path / "run", {"epochs": 1}, class_weights=(1.0, 2.0, 3.0))
    with pytest.raises(UserError, match="--class-weights is"):
        Classify(class_weights=(1.0, 0.0))
    assert not (tmp_path / "run").exists()


def test_training_ends_when_nothing_gets_better(images, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "focalnet.engine.train.evaluate_batches", scripted([0.1, 0.5, 0.4, 0.5, 0.9], original_evaluation())
    )
    config = {"epochs": 9, "patience": 2}
    whole = run(images, tmp_path / "whole", config)
    assert [row["top1"] for row in whole.rows()] == [0.1, 0.5, 0.4, 0.5]
    assert (whole.path / "evaluation.json").exists()
    with pytest.raises(UserError, match="is finished, 4 epochs are done"):
        resume(whole.path)
    monkeypatch.setattr(
        "focalnet.engine.train.evaluate_batches", scripted([0.1, 0.5, 0.4, 0.5, 0.9], original_evaluation())
    )
    assert_same(whole, interrupted(images, tmp_path / "again", config, monkeypatch, 9))
    # killed after the last checkpoint and before the report: nothing is trained any more
    (whole.path / "evaluation.json").unlink()
    monkeypatch.setattr(Training, "step", None)
    assert len(resume(whole.path).rows()) == 4
    assert (whole.path / "evaluation.json").exists()


def original_evaluation():
    from focalnet.engine.evaluation import evaluate_batches

    return evaluate_batches


def scripted(scores, original):
    """Evaluation whose scores are given, one per epoch, all with one loss."""
    left = iter(scores)

    def evaluate(*arguments):
        metrics, details = original(*arguments)
        return {**metrics, "top1": next(left, 0.0), "val_loss": 1.0}, details

    return evaluate


@pytest.mark.parametrize(
    ("samples", "options", "batch", "epochs"),
    [
        (173, {}, 8, 22),
        (100_000, {}, 64, 10),
        (1280, {}, 64, 23),
        (45, {}, 2, 21),
        (30, {}, 2, 31),  # batch norm needs two
        (3, {}, 2, 300),
        (173, {"accumulate": 3}, 6, 17),
        (50, {"least_steps": 0, "least_total": 0}, 50, 10),
        (50, {"least_steps": 0, "least_total": 0, "batch_size": 7}, 7, 10),
    ],
)
def test_batch_and_epochs_fit_the_data(samples, options, batch, epochs):
    given = {"batch_size": 64, "epochs": 10, "least_steps": 20, "least_total": 460} | options
    config = TrainConfig(**given).fitted(samples, 1)
    assert (config.batch_size, config.epochs) == (batch, epochs)
    assert config.fitted(samples, 1) == config


def test_fewer_images_than_a_batch_are_trained_on(images, tmp_path, caplog):
    caplog.set_level("INFO", "focalnet")
    folder = run(images, tmp_path / "run", {"epochs": 1, "batch_size": 64, "least_total": 3})
    assert folder.config()["train"]["batch_size"] == folder.config()["data"]["training samples"] < 64
    assert len(folder.rows()) == 3
    assert "13 training samples: batches of 13, 3 epochs" in caplog.text
