"""The good files that hostile ones are made from: tiny networks, and small data in every format."""

import contextlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

FIXTURES = Path(__file__).parents[1] / "fixtures"
RUNS, EXPORTED = FIXTURES / "runs", FIXTURES / "exported"
SIDE = 24
CLASSES = [str(number) for number in range(10)]


def picture(number: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def prepare(base: Path) -> Path:
    """Make all good files in `base`."""
    base.mkdir(parents=True)
    for run in RUNS.iterdir():
        if (run / "config.json").is_file():
            shutil.copytree(run, base / "runs" / run.name, ignore=shutil.ignore_patterns("expected.json"))
            if not (base / "runs" / run.name / "best").exists():
                shutil.copytree(run / "last", base / "runs" / run.name / "best")
    shutil.copytree(RUNS / "images", base / "images")
    shutil.copytree(EXPORTED, base / "exported")
    made = (
        pictures,
        classes,
        shards,
        videos,
        coco,
        panoptic,
        yolo,
        masks,
        tables,
        saved,
        sounds,
        films,
        weights,
        networks,
    )
    for make in (*made, embeddings):
        make(base)
    return base


def pictures(base: Path) -> None:
    folder = base / "pictures"
    folder.mkdir()
    good = picture(0)
    for name in ("png", "jpg", "bmp", "gif", "webp", "tif", "ppm"):
        good.save(folder / f"rgb.{name}")
    good.convert("L").save(folder / "grey.png")
    good.convert("P").save(folder / "palette.png", transparency=3)
    good.convert("RGBA").save(folder / "alpha.png")
    good.convert("CMYK").save(folder / "cmyk.jpg")
    good.convert("1").save(folder / "bits.png")
    good.convert("L").convert("I").save(folder / "whole.tif")
    good.convert("L").convert("F").save(folder / "float.tif")
    Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 100).save(folder / "deep.png")
    good.save(folder / "pages.tif", save_all=True, append_images=[picture(1), picture(2)], compression="tiff_lzw")
    good.save(folder / "moving.gif", save_all=True, append_images=[picture(1)])
    exif = Image.Exif()
    exif[0x0112] = 6
    good.save(folder / "turned.jpg", exif=exif)


def classes(base: Path) -> None:
    for split in ("train", "val"):
        for label, name in enumerate(("lying", "standing")):
            place = base / "folder" / split / name
            place.mkdir(parents=True)
            for number in range(3):
                picture(label * 10 + number).save(place / f"{number}.png")


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()


def shards(base: Path) -> None:
    (base / "shards").mkdir()
    for split in ("train", "val"):
        with tarfile.open(base / "shards" / f"{split}-000000.tar", "w") as tar:
            for number in range(4):
                add(tar, f"{number}.png", png(number))
                if number % 2:
                    add(tar, f"{number}.cls", str(number % 2).encode())
                else:
                    add(tar, f"{number}.json", json.dumps({"label": number % 2, "note": "x"}).encode())
    (base / "shards" / "classes.txt").write_text("lying\nstanding\n")


def videos(base: Path) -> None:
    import av

    (base / "videos").mkdir()
    for suffix, codec in (("mp4", "mpeg4"), ("avi", "mpeg4"), ("mkv", "mpeg4")):
        with av.open(str(base / "videos" / f"film.{suffix}"), "w") as container:
            stream = container.add_stream(codec, rate=5)
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            for number in range(4):
                frame = av.VideoFrame.from_ndarray(np.asarray(picture(number, (32, 32))), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def square(number: int) -> list[int]:
    return [2 + number, 3, 8, 10]


def coco(base: Path) -> None:
    from focalnet.structures import encode_masks

    root = base / "coco"
    (root / "annotations").mkdir(parents=True)
    import torch

    for split in ("train", "val"):
        (root / f"{split}2017").mkdir()
        content = {"info": {"year": 2020}, "images": [], "annotations": [], "categories": []}
        for number in range(3):
            picture(number).save(root / f"{split}2017" / f"{number}.png")
            content["images"].append({"id": number + 1, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
            x, y, w, h = square(number)
            mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
            mask[:, y : y + h, x : x + w] = True
            outlines = [
                [[x, y, x + w, y, x + w, y + h, x, y + h]],
                encode_masks(mask)[0],
                {"size": [SIDE, SIDE], "counts": [60, 30, 486]},
            ]
            content["annotations"].append({
                "id": number + 1, "image_id": number + 1, "category_id": number, "bbox": [x, y, w, h], "area": w * h,
                "iscrowd": int(number == 2), "segmentation": outlines[number],
            })  # fmt: skip
        content["categories"] = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))


def panoptic(base: Path) -> None:
    root = base / "panoptic"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / f"{split}2017").mkdir()
        (root / "annotations" / f"panoptic_{split}2017").mkdir()
        content = {"images": [], "annotations": [], "categories": []}
        for number in range(3):
            picture(number).save(root / f"{split}2017" / f"{number}.png")
            ids = np.zeros((SIDE, SIDE, 3), np.uint8)
            ids[:12, :, 0] = 1
            ids[12:, :, 0] = 2
            Image.fromarray(ids).save(root / "annotations" / f"panoptic_{split}2017" / f"{number}.png")
            content["images"].append({"id": number + 1, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
            segments = [
                {"id": 1, "category_id": number, "iscrowd": 0, "area": 288, "bbox": [0, 0, SIDE, 12]},
                {"id": 2, "category_id": 10, "iscrowd": 0, "area": 288, "bbox": [0, 12, SIDE, 12]},
            ]
            content["annotations"].append(
                {"image_id": number + 1, "file_name": f"{number}.png", "segments_info": segments}
            )
        names = [*CLASSES, "ground"]
        content["categories"] = [{"id": i, "name": name, "isthing": int(i < 10)} for i, name in enumerate(names)]
        (root / "annotations" / f"panoptic_{split}2017.json").write_text(json.dumps(content))


def yolo(base: Path) -> None:
    root = base / "yolo"
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for number in range(3):
            picture(number).save(root / "images" / split / f"{number}.png")
            lines = [f"{number} 0.5 0.5 0.4 0.3", f"{number + 1} 0.1 0.1 0.6 0.1 0.6 0.7 0.1 0.7"]
            (root / "labels" / split / f"{number}.txt").write_text("\n".join(lines[: 1 + number % 2]) + "\n")
    (root / "data.yaml").write_text(
        f"path: .\ntrain: images/train\nval: images/val\nnc: 10\nnames: {json.dumps(CLASSES)}\n"
    )


def masks(base: Path) -> None:
    root = base / "masks"
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for number in range(3):
            picture(number).save(root / "images" / split / f"{number}.png")
            ids = np.random.default_rng(number).integers(0, 11, (SIDE, SIDE), np.uint8)
            Image.fromarray(ids).save(root / "masks" / split / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(["background", *CLASSES]) + "\n")


def tables(base: Path) -> None:
    root = base / "table"
    (root / "images").mkdir(parents=True)
    for number in range(4):
        picture(number).save(root / "images" / f"{number}.png")
    several = ["lying", "lying standing", "standing", ""]
    rows = [f"images/{number}.png,{labels}" for number, labels in enumerate(several)]
    (root / "labels.csv").write_text("\n".join(["file,labels", *rows]) + "\n")
    rows = [f'"{number}.png",{("lying", "standing")[number % 2]},{number > 1}' for number in range(4)]
    (root / "one.csv").write_text("\n".join(["image,label,is_valid", *rows]) + "\n")
    rows = [f"{number},{number % 2},{int(number > 1)}" for number in range(4)]
    (root / "bits.csv").write_text("\n".join(["image_id,lying,standing", *rows]) + "\n")


def saved(base: Path) -> None:
    """A data set of the package `datasets`: saved to disk, as parquet files, as images with a metadata file."""
    import datasets

    rows = {"image": [{"bytes": png(number), "path": None} for number in range(4)], "label": [0, 1, 0, 1]}
    kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["lying", "standing"]))
    table = datasets.Dataset.from_dict(rows, features=kinds)
    datasets.DatasetDict(train=table, validation=table.select([0, 1])).save_to_disk(str(base / "saved"))
    (base / "parquet").mkdir()
    table.to_parquet(str(base / "parquet" / "train.parquet"))
    (base / "metadata").mkdir()
    lines = ["file_name,label"]
    for number in range(4):
        picture(number).save(base / "metadata" / f"{number}.png")
        lines.append(f"{number}.png,{('lying', 'standing')[number % 2]}")
    (base / "metadata" / "metadata.csv").write_text("\n".join(lines) + "\n")


def weights(base: Path) -> None:
    """One tiny network in each layout of classifiers, and the kept detectors and segmenters in one more."""
    from focalnet.errors import UserError
    from focalnet.models.convert import convert_file
    from focalnet.models.create import create_model
    from focalnet.models.publish import save_pretrained

    (base / "weights").mkdir()
    model = create_model("minifocal_32", classes=["lying", "standing"])
    model.spec = model.spec.replace(task="multilabel", threshold=0.5)
    save_pretrained(model, base / "weights" / "multilabel")
    for run, layouts in {
        "pictures": ("official", "timm", "transformers"),
        "mask_rcnn": ("mmdet", "focalnet"),
        "dino": ("official", "detrex"),
        "upernet": ("mmseg", "focalnet"),
        "mask2former": ("facebookresearch", "focalnet"),
    }.items():
        for layout in layouts:
            for suffix in ("pth", "safetensors"):
                try:
                    convert_file(base / "runs" / run / "last", base / "weights" / f"{run}-{layout}.{suffix}", to=layout)
                except UserError:  # the tiny network has no counterpart there
                    continue


TRUNK = {"embed_dim": 2, "depths": (1, 1), "focal_levels": 2, "focal_windows": 3, "mlp_ratio": 1.0}
NETWORKS = {
    "atss": ("minifocal_128", {"channels": 32, "tower_depth": 1, "num_classes": 10}),
    "cascade_mask_rcnn": (
        "minifocal_128",
        {"fpn_channels": 8, "representation_size": 12, "head_depth": 1, "proposals": 20, "num_classes": 10},
    ),
    "sparse_rcnn": (
        "minifocal_128",
        {"channels": 32, "heads": 2, "ffn_dim": 8, "dynamic_dim": 4, "stages": 2, "num_queries": 10, "num_classes": 10},
    ),
    "focal_unet": ("minifocal_32", {"num_classes": 11}),
    "sound": ("minifocal_32", {"embedding": 8, "num_classes": 2}),
    "video_focalnet": ("minifocal_32", {"num_classes": 2}),
}
"""Families that no kept run is of, each as tiny as it can be: the variant, and what is overridden."""


def networks(base: Path) -> None:
    """A folder of each family, and a file in the layout of others where there is one."""
    import torch

    from focalnet.errors import UserError
    from focalnet.models.convert import convert_file
    from focalnet.models.create import create_model
    from focalnet.models.publish import save_pretrained

    for name, (variant, options) in NETWORKS.items():
        torch.manual_seed(0)
        folder = base / "networks" / name
        save_pretrained(create_model(f"{name}_{variant}", **TRUNK, **options), folder)
        for layout in ("mmdet", "official", "speechbrain"):
            with contextlib.suppress(UserError):  # the family has no such layout
                convert_file(folder, base / "layouts" / f"{name}-{layout}.pth", to=layout)


def sounds(base: Path) -> None:
    import soundfile

    for split in ("train", "val"):
        for label, name in enumerate(("high", "low")):
            place = base / "sounds" / split / name
            place.mkdir(parents=True)
            for number, suffix in enumerate(("wav", "flac", "ogg")):
                wave = np.sin(np.arange(2000 + 500 * number) * (0.9, 0.1)[label])
                soundfile.write(place / f"{number}.{suffix}", wave, 16000)


def films(base: Path) -> None:
    for split in ("train", "val"):
        for name, film in (("lying", "mp4"), ("standing", "avi")):
            place = base / "films" / split / name
            place.mkdir(parents=True)
            for number in range(3):
                shutil.copy(base / "videos" / f"film.{film}", place / f"{number}.{film}")


def embeddings(base: Path) -> None:
    from focalnet.embedding import Embeddings

    vectors = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    names = [str(base / "pictures" / f"rgb.{suffix}") for suffix in ("png", "jpg", "bmp", "gif", "webp", "tif")]
    about = {"model": str(base / "runs" / "pictures"), "weights": None, "focalnet": "0"}
    (base / "embedded").mkdir()
    for suffix in ("npz", "parquet"):
        Embeddings(names, vectors, about).save(base / "embedded" / f"x.{suffix}")
