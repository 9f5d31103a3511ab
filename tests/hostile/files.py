"""Hostile images, folders of classes, shards and videos."""

import io
import json
import os
import random
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

from bases import add, picture, png
from values import NO_FILES, damaged, dumps, no_file, spoiled, value

Commands = tuple[list[list[str]], bytes]
NAMES = ["é.png", "a b.png", "-x.png", "--json", "%20.png", "\udcff.png", "\n.png", "x" * 250 + ".png", "..png", "[a].png",
         "*.png", "a'\"`$(touch mark).png", "\x1b[2J.png", "\u202egnp.png", "x.PNG", ".hidden.png", "CON.png"]  # fmt: skip


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def made_png(width: int, height: int, depth: int = 8, color: int = 2, data: bytes = b"", more: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def strange_image(rng: random.Random) -> tuple[str, bytes]:
    """An image whose header, or what is packed in it, is meant to harm."""
    huge = rng.choice([0, 1, 30_000, 65_535, 100_000, 2**31 - 1, 2**31, 2**32 - 1])
    other = rng.choice([0, 1, 16, 30_000, huge])
    bomb = zlib.compress(bytes(200_000_000 if rng.random() < 0.1 else 1_000_000))
    match rng.randrange(14):
        case 0:
            return "png", made_png(huge, other, rng.choice([1, 8, 16, 3]), rng.choice([0, 2, 3, 4, 6, 1]))
        case 1:
            return "png", made_png(20_000, 20_000, 1, 0, bytes(2501 * 20_000))
        case 2:
            kind = rng.choice([b"zTXt", b"iCCP"])
            return "png", made_png(4, 4, data=bytes(52), more=chunk(kind, b"x\0\0" + bomb))
        case 3:
            return "png", made_png(4, 4, data=bytes(52), more=chunk(b"iTXt", b"x\0\1\0\0\0" + bomb))
        case 4:
            return "png", made_png(4, 4, data=bytes(rng.choice([0, 51, 53, 10_000_000])))
        case 5:
            header = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, rng.choice([-1, 4, 2**30]),
                                         rng.choice([-4, 4, -(2**31), 2**30]), 1, rng.choice([1, 8, 24, 32, 77]),
                                         rng.choice([0, 1, 2, 3, 99]), 48, 1, 1, rng.choice([0, 2**31]), 0)  # fmt: skip
            return "bmp", header + bytes(48)
        case 6:
            return (
                "ppm",
                f"P{rng.choice('123456789')} {rng.choice(['4', '-4', '9' * 30, '99999'])} {other} 255\n".encode()
                + bytes(48),
            )
        case 7:
            return "gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0xF7, 0, 0) + bytes(768) + b"," + bytes(
                9
            ) + b"\x08\xff" + bytes(255)
        case 8:  # a directory of a TIFF that is its own next one, or points outside
            entries = [(256, 4, 1, rng.choice([4, huge])), (257, 4, 1, rng.choice([4, other])), (258, 3, rng.choice([1, 3, 2**31]), 8),
                       (259, 3, 1, rng.choice([1, 5, 7, 32773, 99])), (262, 3, 1, rng.choice([1, 2, 6])), (273, 4, 1, rng.choice([8, 2**31])),
                       (277, 3, 1, rng.choice([1, 3, 65535])), (278, 4, 1, rng.choice([4, 0, 2**32 - 1])), (279, 4, 1, rng.choice([16, 2**32 - 1]))]  # fmt: skip
            body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
            return "tif", b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", rng.choice([8, 0, 2**31])) + bytes(
                64
            )
        case 9:
            buffer = io.BytesIO()
            picture(0).save(buffer, "JPEG")
            exif = (
                b"Exif\0\0MM\0*"
                + struct.pack(">I", rng.choice([8, 2**32 - 1]))
                + struct.pack(">H", rng.choice([1, 65535]))
            )
            exif += struct.pack(
                ">HHII",
                0x0112,
                rng.choice([2, 3, 4, 99]),
                rng.choice([1, 2**31]),
                rng.choice([0x00060000, 0, 2**32 - 1]),
            )
            segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
            data = buffer.getvalue()
            return "jpg", data[:2] + segment + data[2:]
        case 10:
            return rng.choice(["png", "jpg", "webp", "gif"]), b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>'
        case 11:
            return (
                "eps.png",
                b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9999999 9999999\n(mark) (w) file closefile\n",
            )
        case 12:
            return "tif", __import__("pickle").dumps(picture)
        case _:
            buffer = io.BytesIO()
            picture(0, (rng.choice([1, 2, 3, 40_000]), rng.choice([1, 2, 3]))).save(buffer, "PNG")
            return "png", buffer.getvalue()


def image(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    run = rng.choice(["pictures"] * 4 + ["mask_rcnn", "upernet", "mask2former", "dino"])
    model = str(base / "runs" / run)
    good = sorted((base / "pictures").iterdir())
    (folder / "in").mkdir()
    how = index % 8
    if how == 0:
        path = folder / "in" / "x.png"
        no_file(path, rng.choice(NO_FILES), rng)
    elif how == 1:
        try:
            path = folder / "in" / rng.choice(NAMES)
            shutil.copy(good[0], path)
        except OSError:
            path = folder / "in"
    elif how in (2, 3, 4):
        suffix, content = strange_image(rng)
        path = folder / "in" / f"x.{suffix}"
        path.write_bytes(content)
    else:
        source = rng.choice(good)
        path = folder / "in" / source.name
        path.write_bytes(damaged(source.read_bytes(), rng))
    place = str(path.relative_to(folder))
    commands = [
        [
            "predict",
            model,
            *rng.choice([[place], ["in"], [place, str(good[0])], ["in/*"]]),
            *rng.choice([["--json"], [], ["--draw", "out/d"], ["--json", "--on-bad-image", "skip"]]),
        ]
    ]
    if index % 20 == 0:
        commands = [["explain", model, place, "--out", "out/e.png"]]
    if index % 33 == 1:
        listed = "\n".join([place, str(good[0]), rng.choice(["", "\0", "nowhere.png", "x" * 1000, "-", "in"])])
        return [["predict", model, "-", "--json"]], os.fsencode(listed)
    return commands, b""


def folder(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    data = folder / "data"
    shutil.copytree(base / "folder", data)
    files = sorted(path for path in data.rglob("*") if path.is_file())
    for _ in range(rng.choice([1, 1, 2, 4])):
        target = rng.choice(files)
        match rng.randrange(9):
            case 0 | 1:
                if target.is_file():
                    no_file(target, rng.choice(NO_FILES), rng)
            case 2:
                name = rng.choice(NAMES)
                try:
                    shutil.copy(base / "pictures" / "rgb.png", target.parent / name)
                except OSError:
                    continue
            case 3:
                (
                    data
                    / rng.choice(["train", "val"])
                    / rng.choice(["empty", "é", "\udcff", "a\nb", "x" * 255, "-x", ".x"])
                ).mkdir(parents=True, exist_ok=True)
            case 4:
                link = target.parent / "up"
                if target.parent.is_dir() and not link.is_symlink():
                    link.symlink_to(rng.choice(["..", ".", "/dev", "/proc/self", str(data)]))
            case 5:
                shutil.rmtree(rng.choice([target.parent, target.parent.parent]), ignore_errors=True)
            case 6:
                place = data / "train"
                for _ in range(200):
                    place = place / "d"
                place.mkdir(parents=True, exist_ok=True)
            case 7:
                if target.is_file() and not target.is_symlink():
                    target.write_bytes(strange_image(rng)[1])
            case 8:
                (data / rng.choice(["test", "Valid", "training", "__MACOSX", ".ipynb_checkpoints"])).mkdir(
                    exist_ok=True
                )
        if not data.exists():
            break
    files_there = ["data", "data/train", "data/val", "data/train/lying", "data/train/lying/0.png"]
    source = rng.choice([*["data"] * 8, *files_there])
    if index % 6 == 0:
        return [train(source, "classify", rng)], b""
    return [["evaluate", str(base / "runs" / "pictures" / "last"), "--data", source, "--workers", "0"]], b""


def train(source: str, task: str, rng: random.Random, *more: str) -> list[str]:
    model = {
        "classify": "minifocal_32",
        "multilabel": "minifocal_32",
        "detect": "mask_rcnn_minifocal_128",
        "segment": "upernet_minifocal_128",
        "panoptic": "mask2former_minifocal_128",
    }[task]
    return ["train", "--task", task, "--model", model, "--data", source, "--out", "out/run", "--epochs", "1",
            "--batch-size", "2", "--workers", "0", "--image-size", "32", "--precision", "fp32",
            "--on-bad-image", rng.choice(["stop", "skip"]), *more]  # fmt: skip


def shard(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    data = folder / "shards"
    shutil.copytree(base / "shards", data)
    path = data / rng.choice(["train-000000.tar", "val-000000.tar"])
    match index % 10:
        case 0 | 1 | 2:
            path.write_bytes(damaged(path.read_bytes(), rng))
        case 3:
            no_file(rng.choice([path, data / "classes.txt"]), rng.choice(NO_FILES), rng)
        case 4:
            (data / "classes.txt").write_bytes(
                rng.choice(
                    [
                        b"\xff\xfe",
                        b"lying\nlying\n",
                        b"\n\n",
                        b"x" * 3_000_000,
                        b"lying\nstanding\n" * 500,
                        b"a\0b\nc\n",
                        b"\xef\xbb\xbflying\r\nstanding\r\n",
                    ]
                )
            )
        case _:
            with tarfile.open(path, "w", format=rng.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])) as tar:
                for number in range(4):
                    name = rng.choice(
                        [
                            f"{number}",
                            f"../../../mark{number}",
                            f"/tmp/mark{number}",
                            "x" * 300,
                            "é",
                            "a/b/" * 60 + "c",
                            "",
                            ".",
                            "..",
                            "0",
                        ]
                    )
                    add(tar, f"{name}.png", png(number) if rng.random() < 0.7 else strange_image(rng)[1])
                    label = rng.choice(
                        [
                            b"0",
                            b"1",
                            b"lying",
                            b"\xff\xfe",
                            b"",
                            b"9" * 100_000,
                            b"NaN",
                            b"-1",
                            b"a\nb",
                            b"x" * 1_000_000,
                        ]
                    )
                    if rng.random() < 0.5:
                        add(tar, f"{name}.cls", label)
                    else:
                        add(tar, f"{name}.json", dumps(spoiled({"label": number % 2, "cls": [1]}, rng)).encode())
                    if rng.random() < 0.2:
                        info = tarfile.TarInfo(rng.choice(["4.png", "5.cls", "4.json"]))
                        info.type = rng.choice(
                            [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
                        )
                        info.linkname = rng.choice(["/dev/zero", "../../../etc/passwd", "4.png"])
                        tar.addfile(info)
                    if rng.random() < 0.2:
                        info = tarfile.TarInfo("big.png")
                        info.pax_headers = {
                            "size": rng.choice(["-1", "9" * 40, "1e9", "x"]),
                            "path": rng.choice(["x" * 100_000, "a\0b"]),
                        }
                        tar.addfile(info)
    source = rng.choice(["shards", "shards", "shards", "shards/train-*.tar", f"shards/{path.name}"])
    if index % 6 == 0:
        return [train(source, "classify", rng)], b""
    return [["evaluate", str(base / "runs" / "pictures" / "last"), "--data", source, "--workers", "0"]], b""


def video(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    (folder / "in").mkdir()
    source = rng.choice(sorted((base / "videos").iterdir()))
    path = folder / "in" / source.name
    shutil.copy(source, path)
    if index % 5 == 0:
        no_file(path, rng.choice(NO_FILES), rng)
    elif index % 5 == 1:
        path.write_bytes(rng.choice([source.read_bytes()[: rng.randint(0, 400)], (base / "pictures" / "moving.gif").read_bytes(),
                                     b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n"]))  # fmt: skip
    else:
        path.write_bytes(damaged(source.read_bytes(), rng))
    run = rng.choice(["pictures", "pictures", "mask_rcnn"])
    return [
        [
            "predict",
            str(base / "runs" / run),
            rng.choice([f"in/{path.name}", "in"]),
            *rng.choice([["--json"], ["--draw", "out/d"]]),
        ]
    ], b""


__all__ = ["folder", "image", "json", "shard", "value", "video"]
