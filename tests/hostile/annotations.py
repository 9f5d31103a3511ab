"""Hostile annotations: COCO, COCO panoptic, YOLO, label masks."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
from files import Commands, strange_image, train
from PIL import Image
from values import NO_FILES, damaged, dumps, no_file, spoiled, value

TEXTS = [
    lambda text: text[: len(text) // 2], lambda text: "\ufeff" + text, lambda text: text.replace(":", "=", 1),
    lambda text: text.replace("1", "NaN", 1), lambda text: text + text, lambda text: "[" * 200_000 + text,
    lambda text: text.replace('"', "'"), lambda text: text.replace("1", "1" * 100_000, 1), lambda text: "null",
    lambda text: "[]", lambda text: "{}", lambda text: "// a comment\n" + text, lambda text: text.replace("24", '"24"'),
    lambda text: text.replace("24", "24.0"), lambda text: text.replace("24", "1e9"), lambda text: text.replace("24", "-24"),
]  # fmt: skip


def spoil_json(path: Path, index: int, rng: random.Random) -> None:
    text = path.read_text()
    match index % 5:
        case 0:
            path.write_text(rng.choice(TEXTS)(text))
        case 1 if rng.random() < 0.5:
            path.write_bytes(damaged(text.encode(), rng))
        case 1:
            no_file(path, rng.choice(NO_FILES), rng)
        case _:
            path.write_text(dumps(spoiled(json.loads(text), rng, 3)))


def coco(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    data = folder / "coco"
    shutil.copytree(base / "coco", data)
    path = data / "annotations" / rng.choice(["instances_train2017.json", "instances_val2017.json"])
    if index % 12 == 11:
        image = data / rng.choice(["train2017", "val2017"]) / "0.png"
        if rng.random() < 0.5:
            no_file(image, rng.choice(NO_FILES), rng)
        else:
            image.write_bytes(strange_image(rng)[1])
    else:
        spoil_json(path, index, rng)
    source = rng.choice(["coco", "coco", "coco", str(path.relative_to(folder))])
    if index % 8 == 0:
        return [train(source, "detect", rng)], b""
    return [
        [
            "evaluate",
            str(base / "runs" / rng.choice(["mask_rcnn", "dino"]) / "last"),
            "--data",
            source,
            "--workers",
            "0",
            *rng.choice([[], ["--results", "out/r"], ["--json", "out/m.json"]]),
        ]
    ], b""


def panoptic(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    data = folder / "panoptic"
    shutil.copytree(base / "panoptic", data)
    split = rng.choice(["train", "val"])
    path = data / "annotations" / f"panoptic_{split}2017.json"
    if index % 4 == 3:
        image = data / "annotations" / f"panoptic_{split}2017" / "0.png"
        spoil_mask(image, rng)
    else:
        spoil_json(path, index, rng)
    if index % 8 == 0:
        return [train("panoptic", "panoptic", rng)], b""
    return [["evaluate", str(base / "runs" / "mask2former" / "last"), "--data", "panoptic", "--workers", "0"]], b""


def spoil_mask(path: Path, rng: random.Random) -> None:
    """Put a mask of another mode, size or content, or no image, at `path`."""
    size = rng.choice([(24, 24), (24, 24), (1, 1), (24, 25), (5000, 1)])
    pixels = np.random.default_rng(rng.randrange(100)).integers(0, 256, (size[1], size[0]), np.uint8)
    match rng.randrange(9):
        case 0:
            Image.fromarray(pixels.astype(np.int32) * 1000 - 5).save(path, "TIFF")
        case 1:
            Image.fromarray(np.where(pixels > 100, np.nan, pixels).astype(np.float32)).save(path, "TIFF")
        case 2:
            Image.fromarray(pixels.astype(np.uint16) * 200).save(path)
        case 3:
            Image.fromarray(pixels).convert(rng.choice(["RGB", "RGBA", "LA", "P", "1", "CMYK"])).save(
                path, rng.choice(["PNG", "TIFF"]) if rng.random() < 0 else "TIFF"
            )
        case 4:
            Image.fromarray(pixels).save(path)
        case 5:
            no_file(path, rng.choice(NO_FILES), rng)
        case 6:
            path.write_bytes(strange_image(rng)[1])
        case 7:
            path.write_bytes(damaged(path.read_bytes(), rng))
        case 8:
            Image.fromarray(np.full((24, 24), rng.choice([0, 254, 255]), np.uint8)).save(path)


YAMLS = [
    lambda v: "", lambda v: "[" * 5000, lambda v: f"train: {v}\nval: images/val\nnames: [a, b]",
    lambda v: f"train: images/train\nval: {v}\nnames: [a, b]", lambda v: f"train: images/train\nval: images/val\nnames: {v}",
    lambda v: f"train: images/train\nval: images/val\nnc: {v}\nnames: [a, b]", lambda v: f"path: {v}\ntrain: images/train\nval: images/val\nnames: [a, b]",
    lambda v: f"train: images/train\nval: images/val\nnames: {{0: {v}, 1: b}}", lambda v: f"train: images/train\nval: images/val\nnames: [{v}, {v}]",
    lambda v: f"train: [images/train, {v}]\nval: images/val\nnames: [a, b]", lambda v: f"train: images/train\nval: images/val\nnames: {{{v}: a, 1: b}}",
    lambda v: "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*{'a' if not i else f'b{i - 1}'}, *{'a' if not i else f'b{i - 1}'}]\n" for i in range(30)) + "names: *b29\ntrain: images/train",
    lambda v: "names: !!python/object/apply:os.system ['touch mark']\ntrain: x", lambda v: "names: [a, b]\ntrain: images/train\ntrain: images/val\nval: images/val\nkpt_shape: " + v,
    lambda v: "names: 1" + ":1" * 50_000 + "\ntrain: x", lambda v: "? [a, b]\n: c\nnames: [a]", lambda v: "names: [a, b]\ntrain: images/train\nval: images/val\ntest: " + v,
]  # fmt: skip
SCALARS = ["null", "true", "1", "-1", ".nan", ".inf", "'x'", "[]", "{}", "[[]]", "[null]", "9" * 100_000, "/dev/zero", "/dev", "/proc/self/fd", "..", "../..", "x" * 1000,
           '"\\uD800"', '"\\0"', "2020-01-01", "2020-99-99", "!!binary x", "~", "images/train", "images/train/0.png", "list.txt", "{a: b}", "1e999", "é", "http://x/y", "'*'", "&a [*a]"]  # fmt: skip
LINES = ["nan 0.5 0.5 0.1 0.1", "0 nan 0.5 0.1 0.1", "0 1e999 0.5 0.1 0.1", "0 0.5", "0", "", "x y z", "0 0.5 0.5 0 0", "0 0.5 0.5 -0.1 0.1",
         "99999999999999999999 0.5 0.5 0.1 0.1", "-1 0.5 0.5 0.1 0.1", "0.5 0.5 0.5 0.1 0.1", "0 5 5 1 1", "0 " + "0.5 " * 100_000, "0 0.1 0.1 0.1 0.1 0.1 0.1",
         "0 0.5 0.5 0.1 0.1 0.9", "0 1_0 0.5 0.1 0.1", "0 ٣ 0.5 0.1 0.1", "0 0.5 0.5 0.1 0.1 0 0 2 0.1 0.1 2", "0 0x1p3 0.5 0.1 0.1", "0 0.5 0.5 0.1 0.1\0", "inf inf inf inf inf",
         "0 1e-320 1e-320 1e-320 1e-320", "9" * 100_000 + " 0.5 0.5 0.1 0.1", "\ufeff0 0.5 0.5 0.1 0.1", "0,0.5,0.5,0.1,0.1"]  # fmt: skip


def yolo(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    data = folder / "yolo"
    shutil.copytree(base / "yolo", data)
    split = rng.choice(["train", "val"])
    label = data / "labels" / split / "0.txt"
    match index % 4:
        case 0 | 1:
            (data / "data.yaml").write_text(rng.choice(YAMLS)(rng.choice(SCALARS)), encoding="utf-8")
        case 2:
            label.write_text(
                "\n".join([label.read_text().strip(), *rng.choices(LINES, k=rng.randint(1, 4))]), encoding="utf-8"
            )
        case 3:
            target = rng.choice([label, data / "data.yaml", data / "images" / split / "0.png", data / "list.txt"])
            if target.name == "list.txt":
                lines = [
                    rng.choice(
                        [
                            "images/train/0.png",
                            "./images/train/1.png",
                            "nowhere.png",
                            "x" * 1000,
                            "\\images\\train\\0.png",
                            "a\0b",
                            "/dev/zero",
                            "",
                            "..",
                            "%20",
                        ]
                    )
                    for _ in range(5)
                ]
                target.write_text("\n".join(lines))
                (data / "data.yaml").write_text("train: list.txt\nval: list.txt\nnames: [a, b, c, d]")
            elif rng.random() < 0.5:
                no_file(target, rng.choice(NO_FILES), rng)
            else:
                target.write_bytes(damaged(target.read_bytes(), rng))
    source = rng.choice(["yolo", "yolo/data.yaml"])
    if index % 6 == 0:
        return [train(source, "detect", rng)], b""
    return [["evaluate", str(base / "runs" / "mask_rcnn" / "last"), "--data", source, "--workers", "0"]], b""


def masks(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    data = folder / "masks"
    shutil.copytree(base / "masks", data)
    split = rng.choice(["train", "val"])
    match index % 3:
        case 0 | 1:
            spoil_mask(data / "masks" / split / "0.png", rng)
        case 2 if rng.random() < 0.5:
            no_file(data / "classes.txt", rng.choice(NO_FILES), rng)
        case 2:
            names = [
                rng.choice(["a", "b", "", "\x1b[2J", "x" * 5000, "\0", "é", "\ufeffa", "background", str(rng.random())])
                for _ in range(rng.choice([1, 2, 11, 300]))
            ]
            (data / "classes.txt").write_text("\n".join(names))
    if index % 6 == 0:
        return [train("masks", "segment", rng)], b""
    return [
        [
            "evaluate",
            str(base / "runs" / "upernet" / "last"),
            "--data",
            "masks",
            "--workers",
            "0",
            *rng.choice([[], ["--window", "16"], ["--tta"]]),
        ]
    ], b""


__all__ = ["coco", "masks", "panoptic", "value", "yolo"]
