"""Hostile command lines: every option with values that nobody means."""

import itertools
import random
from pathlib import Path

from files import Commands

VALUES = ["nan", "inf", "-inf", "1e999", "-1", "0", "", "9" * 100, "1" + "0" * 4500, "x", "None", "True", "\ud800", "\udcff", "a\0b", "x" * 1000, "x" * 200_000, "../../..",
          "/dev/zero", "/dev/null", "/dev/full", "pipe", "folder", "loop", "~", "~nobody/x", "http://127.0.0.1:1/x", "file:///etc/passwd", "hf:x/y", "a/b", "*", "[", "--help",
          "-", "--", "é\n", "\x1b[2J", "0.5", "1e-320", "10**9", "1000000000", "{}", "$(touch mark)", "official", "run", "image.png", "empty", "1 2", "٣"]  # fmt: skip
OPTIONS = {
    "train": ["--task", "--recipe", "--model", "--data", "--out", "--weights", "--num-classes", "--val-fraction", "--image-size", "--on-bad-image", "--drop-path", "--epochs",
              "--batch-size", "--accumulate", "--lr", "--min-lr", "--warmup-epochs", "--weight-decay", "--clip-grad", "--ema", "--precision", "--seed", "--workers",
              "--trackers", "--checkpoint-minutes", "--schedule", "--optimizer", "--mixing", "--label-smoothing", "--augment", "--strategy", "--recompute", "--backbone-lr"],
    "resume": ["--epochs", "--checkpoint", "--data"],
    "evaluate": ["--data", "--weights", "--batch-size", "--workers", "--window", "--json", "--results", "--tta", "--split"],
    "predict": ["--weights", "--draw", "--threshold", "--window", "--batch-size", "--on-bad-image", "--json", "--format"],
    "explain": ["--weights", "--out", "--target", "--grad-cam"],
    "convert": ["--to"],
    "check": ["--task", "--out", "--model", "--augment", "--image-size", "--channels", "--range", "--val-fraction", "--seed", "--on-bad-image", "--json"],
    "embed": ["--out", "--model", "--weights", "--batch-size", "--on-bad-image", "--device"],
    "similar": ["--top", "--duplicates", "--device"],
    "export": ["--weights", "--format", "--image-size", "--tolerance"],
    "app": ["--static", "--port", "--weights", "--examples", "--image-size"],
    "models": ["--json"],
    "recipes": [],
}  # fmt: skip
WRITTEN = ("--out", "--json", "--draw", "--results", "--static")
"""Options that say where something is written."""


def command(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    import os
    import shutil

    shutil.copytree(base / "runs" / "pictures", folder / "run")
    shutil.copytree(base / "folder", folder / "folder")
    shutil.copy(base / "pictures" / "rgb.png", folder / "image.png")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    name = list(OPTIONS)[index % len(OPTIONS)]
    start = {
        "train": ["--data", "folder", "--model", "minifocal_32", "--epochs", "1", "--batch-size", "2", "--workers", "0", "--out", "out/run", "--image-size", "16", "--precision", "fp32"],
        "resume": ["run"], "evaluate": ["run", "--data", "folder", "--workers", "0"], "predict": ["run", "image.png", "--json"],
        "explain": ["run", "image.png", "--out", "out/e.png"], "convert": ["run", "out/x.pth", "--to", "timm"], "models": [], "recipes": [],
        "check": ["folder", "--out", "out/c"], "embed": ["folder", "--model", "run", "--out", "out/x.npz"],
        "similar": ["image.png", str(base / "embedded" / "x.npz")], "export": ["run", "out/x.pt2"],
        "app": ["run", "--static", "out/page", "--examples", "0", "--port", "0"],
    }[name]  # fmt: skip
    arguments = list(start)
    if rng.random() < 0.75 and OPTIONS[name]:
        option, given = rng.choice(OPTIONS[name]), rng.choice(VALUES)
        harmless = (option == "--workers" and given.isdecimal()) or (
            option == "--epochs" and given.isdecimal() and len(given) > 3
        )
        arguments += [option, "nan" if harmless else given]
        if option in WRITTEN and not given.startswith("/dev"):
            arguments[-1] = f"out/{given}" if rng.random() < 0.5 else arguments[-1]
    else:
        places = [place for place, argument in enumerate(arguments) if not argument.startswith("-")]
        places = [place for place in places if not place or arguments[place - 1] not in ("--epochs", "--workers")]
        given = rng.choice(VALUES)
        if places:
            arguments[rng.choice(places)] = given
        else:
            arguments.append(given)
    good = ("run", "folder", "empty", "image.png", "../../..", "x", "~")
    for place, (option, argument) in enumerate(itertools.pairwise(arguments), 1):
        # what is written must be told from what is not
        if option in WRITTEN and option != "--json" and argument in good:
            arguments[place] = f"out/{argument}"
    return [[name, *arguments]], b""
