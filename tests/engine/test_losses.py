"""Losses stay on the device between looks, and every step has its own all the same."""

from types import SimpleNamespace

import pytest
import torch

from focalnet.engine import losses as module
from focalnet.engine.losses import MOST_STEPS, Losses

ALONE = SimpleNamespace(num_processes=1, device=torch.device("cpu"))


def test_a_cpu_is_looked_at_after_every_step():
    losses = Losses(ALONE)
    for step in range(1, 4):
        assert not losses.due
        losses.add(step, {"network": torch.tensor(0.1 * step)})
        assert losses.due
        assert losses.look() == [(step, {"network": torch.tensor(0.1 * step).item()})]
        assert losses.look() == []
    assert losses.every == 1


def test_a_look_at_several_steps_gives_the_numbers_of_single_looks(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    losses, seen, looks = Losses(ALONE, queues=True), [], []
    for step in range(1, 41):
        clock[0] += 0.25
        losses.add(step, {"one": torch.tensor(1 / step), "other": torch.tensor(-1.0 * step)})
        if losses.due:
            looks.append(step)
            seen += losses.look()
    assert looks[:4] == [1, 2, 6, 10], "a step of 0.25 s: one look in a second, as soon as that is known"
    assert [step for step, _ in seen] == list(range(1, 39))
    assert all(parts == {"one": torch.tensor(1 / step).item(), "other": -step} for step, parts in seen)
    assert [step for step, _ in losses.look()] == [39, 40]
    clock[0] += 1e-3
    losses.add(41, {"one": torch.tensor(0.0), "other": torch.tensor(0.0)})
    losses.look()
    assert losses.wish == MOST_STEPS


def test_processes_look_after_the_same_step_and_average(monkeypatch):
    def gather(tensor):
        other = torch.tensor([3]) if tensor.dtype == torch.int64 else tensor + 1.0
        return torch.cat([tensor, other])

    losses = Losses(SimpleNamespace(num_processes=2, device=torch.device("cpu"), gather=gather), queues=True)
    losses.wish = 7
    losses.add(1, {"network": torch.tensor(2.0)})
    assert losses.look() == [(1, {"network": 2.5})]
    assert losses.every == 3, "the least of what the processes wish"


@pytest.mark.parametrize("look", [1, 2])
def test_a_loss_that_is_no_number_is_named_by_its_step(pictures, tmp_path, monkeypatch, capsys, look):
    from focalnet.cli import main
    from focalnet.engine import train as engine
    from focalnet.engine.training import Training

    original = Training.step

    def step(self, batches, number, steps):
        losses = original(self, batches, number, steps)
        return {name: loss * float("nan") if number == 2 else loss for name, loss in losses.items()}

    class Rarely(Losses):
        due = property(lambda self: len(self.waiting) >= look)

    monkeypatch.setattr(Training, "step", step)
    monkeypatch.setattr(engine, "Losses", Rarely)
    words = f"--data {pictures} --out {tmp_path / 'run'} --model minifocal_32 --weights None --image-size 32"
    with pytest.raises(SystemExit):
        main(["train", *words.split(), *["--epochs", "1", "--batch-size", "4", "--workers", "0"]])
    assert "The loss is nan at step 3 (epoch 1, step 3 of 5)" in capsys.readouterr().err
    assert not (tmp_path / "run" / "last").exists()
