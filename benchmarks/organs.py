"""Focal-UNet on the phantoms of organs, beside what grey alone tells and a plain U-Net of equal size.

    python benchmarks/organs.py          three seeds; each network sees the same slices for the same number of steps

The phantoms have eight organs of three greys (`focalnet.data.formats.organs`). A table from grey to the likeliest class
is the best that a pixel can do alone. The plain U-Net (Ronneberger et al., 2015) has the same number of parameters to
within 2 %, and the same loss, optimizer and augmentation. Rows are printed, and appended as JSON lines with commit and
device.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.bench.measure import commit, device_name
from focalnet.data import open_data
from focalnet.metrics.overlap import OverlapMetric
from focalnet.models.focal_unet.model import dice_loss
from focalnet.tasks.segment import Segment

RESULTS = Path(__file__).parent / "results" / "organs.jsonl"
CLASSES = 9


class Twice(nn.Sequential):
    """Two convolutions, each with batch norm and ReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
        )  # fmt: skip


class UNet(nn.Module):
    """A plain U-Net of four scales."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * 2**scale for scale in range(4)]
        self.down = nn.ModuleList(Twice(*pair) for pair in zip([3, *widths[:-1]], widths, strict=True))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[-2::-1])
        self.up = nn.ModuleList(Twice(2 * w, w) for w in widths[-2::-1])
        self.output = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, K, H, W); H and W multiples of 8."""
        skips = []
        for scale, block in enumerate(self.down):
            skips.append(x := block(F.max_pool2d(x, 2) if scale else x))
        for grow, block, skip in zip(self.grow, self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, grow(x)], 1))
        return self.output(x)


def plain(parameters: int) -> UNet:
    """The U-Net whose size is nearest."""
    return min(map(UNet, range(16, 64)), key=lambda net: abs(count(net) - parameters))


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def fit(net: nn.Module, task: Segment, spec, data, steps: int, batch: int, seed: int) -> None:
    """Train as the recipe "organs" does, with a cosine and without an average of the weights."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.05)
    net.train()
    for step in range(steps):
        share = min((step + 1) / 50, 0.5 * (1 + math.cos(math.pi * step / steps)))
        optimizer.param_groups[0]["lr"] = 2e-3 * share
        rows = [task.example(spec, data[(step * batch + i) % len(data)], train=True) for i in range(batch)]
        collated = task.collate(spec, rows, train=True)
        logits, truth = net(collated["images"]), task.targets(collated)
        loss = 0.6 * dice_loss(logits, truth) + 0.4 * F.cross_entropy(logits, truth, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()


def by_grey(data) -> Callable[[Tensor], Tensor]:
    """The likeliest class of each grey."""
    counts = np.zeros((256, CLASSES), np.int64)
    for index in range(200):
        sample = data[index]
        np.add.at(counts, (np.asarray(sample.image)[..., 0], sample.semantic.numpy()), 1)
    table = torch.from_numpy(counts.argmax(1))
    return lambda grey: table[grey.long()]


def label(net: nn.Module, how, sample) -> Tensor:
    with torch.inference_mode():
        return net(how(sample.image)[None]).argmax(1)[0]


def measure(predict: Callable[[object], Tensor], data) -> dict[str, float]:
    metric = OverlapMetric(CLASSES)
    for index in range(len(data)):
        metric.update(predict(data[index]), data[index].semantic)
    return {name: round(value, 4) for name, value in metric.compute().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=750)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    facts = {"commit": commit(), "time": datetime.now(UTC).isoformat(timespec="seconds"), "device": device_name("cpu")}

    def keep(row: dict) -> None:
        print(json.dumps(row), flush=True)
        with args.output.open("a") as file:
            file.write(json.dumps(row | facts) + "\n")

    task = Segment(data="organs", model="focal_unet_minifocal_128", augment="turns", drop_path=0.0, image_size=96)
    data = open_data("semantic", "organs", val_fraction=0.2, seed=0, on_bad_image="stop")
    grey = by_grey(data.train)
    keep({"network": "grey alone", **measure(lambda s: grey(torch.from_numpy(np.array(s.image)[..., 0])), data.val)})
    for seed in args.seeds:
        torch.manual_seed(seed)
        ours = task.build_model(data)
        for name, net in (("focal_unet_minifocal_128", ours), ("plain U-Net", plain(count(ours)))):
            began = time.process_time()
            fit(net, task, ours.spec, data.train, args.steps, args.batch, seed)
            seconds = time.process_time() - began
            net.eval()
            keep({"network": name, "seed": seed, "parameters": count(net), "steps": args.steps,
                  "cpu_seconds": round(seconds),
                  **measure(partial(label, net, ours.spec.preprocessing), data.val)})  # fmt: skip


if __name__ == "__main__":
    main()
