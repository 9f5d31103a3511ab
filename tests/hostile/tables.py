"""Hostile tables of labels, and hostile folders of the package `datasets`."""

import json
import random
import shutil
from pathlib import Path

from files import Commands, strange_image, train
from values import NO_FILES, damaged, dumps, no_file, spoiled

CELLS = [
    "", "0", "1", "2", "-1", "nan", "NaN", "1e999", "0.5", "true", "x" * 5000, "lying", "lying standing", "lying|standing", "|||", ";", "[]",
    "['lying', 'standing']", "=cmd|' /C calc'!A0", "é", "a\0b", "\x1b[2J", "\u202e", '"', '""', "'", "images/0.png", "../../../etc/passwd", "/dev/zero",
    "/dev/null", "/proc/self/environ", "images\\1.png", "%2e%2e/%2e%2e", "file:///etc/passwd", "http://x/y.png", "images", ".", "..", "a\nb", "9" * 100_000,
]  # fmt: skip
HEADERS = [
    "file,labels", "image_id,lying,standing", "file,label,is_valid", "file,labels,split", "file", "labels", "", "file,file", "file,labels,labels",
    "file;labels", "file\tlabels", "id,0,1", ",file,labels", "file,labels," * 3000, '"file,labels', "file,xmin,label", "\ufeff\ufefffile,labels", "FILE , LABELS ",
]  # fmt: skip
TEXTS = [
    lambda text: text[: len(text) // 2], lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r"), lambda text: text.replace("\n", "\r\n"),
    lambda text: text.replace(",", ";"), lambda text: text.replace(",", "\t"), lambda text: text.replace('"', ""), lambda text: text.replace('"', '"""'),
    lambda text: text * 300, lambda text: text.replace("\n", "\n\n\n"), lambda text: text + "," * 200_000, lambda text: text.split("\n", 1)[1],
    lambda text: text + "\0\n", lambda text: '"' + text,
]  # fmt: skip


def table(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    data = folder / "table"
    shutil.copytree(base / "table", data)
    kept = rng.choice(["labels.csv", "one.csv", "bits.csv"])
    for other in data.glob("*.csv"):
        if other.name != kept and rng.random() < 0.8:
            other.unlink()
    path = data / kept
    text = path.read_text()
    match index % 6:
        case 0:
            path.write_text(rng.choice(TEXTS)(text), encoding="utf-8")
        case 1 if rng.random() < 0.5:
            path.write_bytes(damaged(text.encode(), rng))
        case 1:
            no_file(path, rng.choice(NO_FILES), rng)
        case 2:
            lines = text.split("\n")
            path.write_text("\n".join([rng.choice(HEADERS), *lines[1:]]), encoding="utf-8")
        case 3:
            image = data / "images" / f"{rng.randrange(4)}.png"
            if rng.random() < 0.5:
                no_file(image, rng.choice(NO_FILES), rng)
            else:
                image.write_bytes(strange_image(rng)[1])
        case _:
            rows = [line.split(",") for line in text.strip().split("\n")]
            for _ in range(rng.choice([1, 2, 8])):
                row = rng.choice(rows)
                row[rng.randrange(len(row))] = rng.choice(CELLS)
            path.write_text("\n".join(map(",".join, rows)) + "\n", encoding="utf-8")
    source = rng.choice(["table", f"table/{kept}"])
    task = rng.choice(["multilabel", "multilabel", "classify"])
    if index % 7 == 0:
        return [train(source, task, rng)], b""
    model = "weights/multilabel" if task == "multilabel" else "runs/pictures/last"
    return [["evaluate", str(base / model), "--data", source, "--workers", "0"]], b""


def saved(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    kind = ("saved", "parquet", "metadata")[index % 3]
    data = folder / kind
    shutil.copytree(base / kind, data)
    path = rng.choice(sorted(file for file in data.rglob("*") if file.is_file()))
    how = rng.random()
    if how < 0.2:
        no_file(path, rng.choice([kind for kind in NO_FILES if kind != "pipe"]), rng)
    elif path.suffix == ".json" and how < 0.8:
        path.write_text(dumps(spoiled(json.loads(path.read_text()), rng, 3)))
    elif path.suffix == ".png":
        path.write_bytes(strange_image(rng)[1])
    else:
        path.write_bytes(damaged(path.read_bytes(), rng))
    if index % 9 == 0:
        return [train(kind, "classify", rng)], b""
    return [["evaluate", str(base / "runs" / "pictures" / "last"), "--data", kind, "--workers", "0"]], b""
