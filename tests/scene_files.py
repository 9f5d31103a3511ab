"""Small data sets in the formats of the field, written from painted scenes of digits."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from focalnet.data import DenseSample
from focalnet.data.formats.digit_scenes import open_digit_scenes
from focalnet.structures import encode_masks

SIDE = 64


def scenes(kind: str, train: int, val: int) -> dict[str, list[DenseSample]]:
    """Scenes of 64 pixels, cut out of the middle of painted ones by halving their size."""
    splits = open_digit_scenes(kind)
    return {
        name: [split.reader.read(index) for index in range(count)]
        for name, split, count in zip(("train", "val"), splits, (train, val), strict=True)
    }


def half(scene: DenseSample) -> tuple[Image.Image, torch.Tensor, torch.Tensor | None]:
    masks = None if scene.masks is None else scene.masks[:, ::2, ::2]
    return scene.image.resize((SIDE, SIDE)), masks, None if scene.semantic is None else scene.semantic[::2, ::2]


def write_coco(folder: Path, train: int = 12, val: int = 5) -> Path:
    """`annotations/instances_{train,val}2017.json` beside `train2017/` and `val2017/`; the ids are 3, 6, 9 ..."""
    (folder / "annotations").mkdir(parents=True)
    for name, found in scenes("detection", train, val).items():
        (folder / f"{name}2017").mkdir()
        images, rows = [], []
        for number, scene in enumerate(found, 100):
            image, masks, _ = half(scene)
            image.save(folder / f"{name}2017" / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
            for label, mask, shape in zip(scene.labels.tolist(), masks, encode_masks(masks), strict=True):
                y, x = torch.nonzero(mask, as_tuple=True)
                left, top = float(x.min()), float(y.min())
                box = [left, top, float(x.max()) + 1 - left, float(y.max()) + 1 - top]
                rows.append({
                    "id": len(rows) + 1, "image_id": number, "category_id": 3 * (label + 1), "bbox": box,
                    "area": float(mask.sum()), "iscrowd": 0, "segmentation": shape,
                })  # fmt: skip
        categories = [{"id": 3 * (label + 1), "name": f"digit {label}"} for label in range(10)]
        content = {"images": images, "annotations": rows, "categories": categories}
        (folder / "annotations" / f"instances_{name}2017.json").write_text(json.dumps(content))
    return folder


def write_semantic(folder: Path, train: int = 12, val: int = 5) -> Path:
    """`images/{train,val}`, `masks/{train,val}` and `classes.txt`."""
    for name, found in scenes("semantic", train, val).items():
        for kind in ("images", "masks"):
            (folder / kind / name).mkdir(parents=True)
        for number, scene in enumerate(found):
            image, _, semantic = half(scene)
            image.save(folder / "images" / name / f"{number}.png")
            Image.fromarray(semantic.numpy()).save(folder / "masks" / name / f"{number}.png")
    (folder / "classes.txt").write_text("\n".join(["background", *map(str, range(10))]))
    return folder


def write_panoptic(folder: Path, train: int = 12, val: int = 5) -> Path:
    """`annotations/panoptic_{train,val}2017.json` with their folders of PNG files, beside the images."""
    (folder / "annotations").mkdir(parents=True)
    names = [*map(str, range(10)), "ground"]
    categories = [{"id": i + 1, "name": name, "isthing": int(i < 10)} for i, name in enumerate(names)]
    for side, found in scenes("panoptic", train, val).items():
        (folder / f"{side}2017").mkdir()
        (folder / "annotations" / f"panoptic_{side}2017").mkdir()
        images, rows = [], []
        for number, scene in enumerate(found, 100):
            image, masks, _ = half(scene)
            image.save(folder / f"{side}2017" / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
            ids = (masks * torch.arange(1, len(masks) + 1)[:, None, None]).sum(0).numpy()
            png = np.stack([ids, ids * 0, ids * 0], -1).astype(np.uint8)
            Image.fromarray(png).save(folder / "annotations" / f"panoptic_{side}2017" / f"{number}.png")
            segments = [
                {"id": i, "category_id": label + 1, "iscrowd": 0, "area": int((ids == i).sum()), "bbox": [0, 0, 1, 1]}
                for i, label in enumerate(scene.labels.tolist(), 1)
            ]
            rows.append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
        content = {"images": images, "annotations": rows, "categories": categories}
        (folder / "annotations" / f"panoptic_{side}2017.json").write_text(json.dumps(content))
    return folder


WRITERS = {"detect": write_coco, "segment": write_semantic, "panoptic": write_panoptic}
