"""Hostile networks beside the kept runs: their data, folders and files, exported files, embeddings."""

import io
import json
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import torch
from annotations import coco, yolo
from checkpoints import BOMBS, Evil, spoil
from files import Commands, strange_image
from runs import one_field, seal
from safetensors.torch import load_file, save_file
from values import NO_FILES, damaged, dumps, no_file, spoiled, value

DETECTORS = ("atss", "cascade_mask_rcnn", "sparse_rcnn")
DATA = {
    **dict.fromkeys(DETECTORS, "coco"),
    "focal_unet": "masks",
    "sound": "sounds",
    "video_focalnet": "films",
}
"""What each family of `bases.NETWORKS` learns from."""


def detector(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    """Detection data that is wrong, as `coco` and `yolo` make it, under the other detectors."""
    name = DETECTORS[index % 3]
    ((command,), stdin) = (coco if index % 2 else yolo)(rng, index // 2, folder, base)
    if command[0] == "train":
        command[command.index("--model") + 1] = f"{name}_minifocal_128"
    else:
        command[1] = str(base / "networks" / name)
    return [command], stdin


def network(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    """A model folder, or a file in another layout, with one thing of it changed."""
    name = list(DATA)[index % len(DATA)]
    place = folder / "model"
    shutil.copytree(base / "networks" / name, place)
    source = "model"
    match rng.randrange(5):
        case 0 | 1:
            config = place / "config.json"
            content = json.loads(config.read_text())
            config.write_text(dumps(one_field(content, rng, index) if rng.random() < 0.7 else spoiled(content, rng, 3)))
        case 2:
            weights = place / "model.safetensors"
            try:
                save_file({key: tensor.contiguous() for key, tensor in spoil(load_file(weights), rng).items()}, weights)
            except Exception:  # a tensor that safetensors does not write
                weights.write_bytes(damaged(weights.read_bytes(), rng))
        case 3:
            no_file(rng.choice(sorted(place.iterdir())), rng.choice(NO_FILES), rng)
        case 4:
            source = "x.pth"
            other = rng.choice(sorted((base / "layouts").iterdir()))
            content = torch.load(other)
            inner = next((key for key in ("state_dict", "model") if isinstance(content.get(key), dict)), None)
            if inner is None:
                content = spoil(content, rng)
            else:
                content[inner] = spoil(content[inner], rng)
            torch.save(content, folder / source)
    data = str(base / DATA[name])
    sample = next(path for path in sorted(Path(data).rglob("*")) if path.suffix in (".png", ".wav", ".mp4"))
    command = rng.choice([
        ["predict", source, str(sample), "--json"], ["evaluate", source, "--data", data, "--workers", "0"],
        ["convert", source, "out/x.pth", "--to", rng.choice(["mmdet", "focalnet", "official", "speechbrain"])],
        ["explain", source, str(sample), "--out", "out/e.png"],
    ])  # fmt: skip
    return [command], b""


def export(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    """A damaged model, or a wrong wish, that is to become a file."""
    place = folder / "model"
    shutil.copytree(base / "runs" / "pictures" / "last", place)
    (folder / "net.onnx").write_bytes((base / "exported" / "net.onnx").read_bytes())
    out = f"out/x{rng.choice(['.onnx', '.xml', '.pt2'])}"
    more: list[str] = []
    match index % 4:
        case 0:
            config = place / "config.json"
            config.write_text(dumps(one_field(json.loads(config.read_text()), rng, index // 4)))
            seal(place)
        case 1:
            weights = place / "model.safetensors"
            tensors = load_file(weights)
            name = rng.choice(list(tensors))
            tensors[name] = torch.full_like(tensors[name], rng.choice([float("nan"), float("inf"), 1e30, 0.0]))
            save_file(tensors, weights)
            seal(place)
        case 2:
            out = rng.choice(["out", "out/", "out/x", "out/x.exe", ".onnx", "out/\x1b.pt2", "out/é .onnx", "/dev/full",
                              "/dev/null", "/proc/x.pt2", "model/config.json", "out/a/b/c.pt2", "x" * 300 + ".pt2"])  # fmt: skip
        case 3:
            options = ["--image-size", "--tolerance", "--format"]
            more = [
                rng.choice(options),
                rng.choice(["0", "-1", "nan", "1", "7", "32", "1e9", "99999", "onnx", "x", ""]),
            ]
    source = rng.choice(["model"] * 6 + ["net.onnx", str(base / "networks" / rng.choice(list(DATA)))])
    return [["export", source, out, *more]], b""


def exported(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    """A damaged, cut or forged file of an exported network."""
    suffix = (".onnx", ".xml", ".pt2")[index % 3]
    for file in (base / "exported").glob("net.*"):
        shutil.copy(file, folder / file.name)
    path = folder / f"net{suffix}"
    content = path.read_bytes()
    match index // 3 % 6:
        case 0:
            path.write_bytes(damaged(content, rng))
        case 1:
            path.write_bytes(content[: rng.randrange(len(content))])
        case 2:
            no_file(rng.choice([path, *([folder / "net.bin"] if suffix == ".xml" else [])]), rng.choice(NO_FILES), rng)
        case 3:
            other = rng.choice([".onnx", ".xml", ".pt2", ".bin"])
            path.write_bytes((base / "exported" / f"net{other}").read_bytes())
        case _ if suffix == ".pt2" and rng.random() < 0.6:
            forge_program(path, rng)
        case _:
            forge_record(path, rng, base)
    image = str(base / "pictures" / "rgb.png")
    command = rng.choice([
        ["predict", path.name, image, "--json"], ["predict", path.name, image, "--json"],
        ["evaluate", path.name, "--data", str(base / "folder"), "--workers", "0"], ["export", path.name, "out/x.onnx"],
        ["explain", path.name, image, "--out", "out/e.png"], ["embed", image, "--model", path.name, "--out", "out/x.npz"],
    ])  # fmt: skip
    return [command], b""


def forged_record(record: str, rng: random.Random, base: Path) -> str:
    """Another record: of another network, or with something of it changed."""
    good = json.loads(record)
    match rng.randrange(6):
        case 0:
            name = rng.choice(list(DATA))
            good["spec"] = json.loads((base / "networks" / name / "config.json").read_text())
        case 1:
            good["spec"] = spoiled(good["spec"], rng, 3)
        case 2 | 3:
            good = one_field(good, rng, rng.randrange(1000))
        case 4:
            field = rng.choice([
                {"outputs": []}, {"outputs": ["x", "y"]}, {"shape": [2, 3]}, {"shape": []}, {"shape": [2, 3, 10**9, 10**9]},
                {"free": [0, 1, 2, 3, 4]}, {"free": []}, {"free": [-1]}, {"sizes": True}, {"version": 10**9}, {"version": -1},
            ])  # fmt: skip
            good |= field
        case 5:
            return rng.choice(["", "{}", "[]", "null", "NaN", "[" * 100_000, "x", '{"version": 1}'])
    return dumps(good)


def forge_record(path: Path, rng: random.Random, base: Path) -> None:
    if path.suffix == ".onnx":
        import onnx

        model = onnx.load(str(path))
        entry = next(entry for entry in model.metadata_props if entry.key == "focalnet")
        entry.value = forged_record(entry.value, rng, base).encode("utf-8", "replace").decode()
        if rng.random() < 0.3:  # weights that are said to lie elsewhere
            weight = rng.choice(model.graph.initializer)
            weight.ClearField("raw_data")
            weight.data_location = onnx.TensorProto.EXTERNAL
            place = weight.external_data.add()
            place.key, place.value = (
                "location",
                rng.choice(["/etc/passwd", "../../../etc/passwd", "/dev/zero", "x", ""]),
            )
        path.write_bytes(model.SerializeToString())
    elif path.suffix == ".xml":
        text = path.read_text()
        begin = text.index('<focalnet value="') + len('<focalnet value="')
        end = text.index('"', begin)
        record = text[begin:end].replace("&quot;", '"').replace("&amp;", "&")
        record = forged_record(record, rng, base).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        text = text[:begin] + record + text[end:]
        if rng.random() < 0.3:
            text = rng.choice([
                text.replace('offset="', 'offset="9', 3), text.replace("<dim>", "<dim>99999999", 3), text.replace('size="', 'size="-', 2),
                text.replace("<layer", "<layer" * 1000, 1), '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + text,
                text.replace('version="opset1"', 'version="opset99"', 2), "<a>" * 100_000 + text, text.replace('id="1"', 'id="x"', 1),
            ])  # fmt: skip
        path.write_text(text, encoding="utf-8", errors="replace")
    else:
        record = lambda text: forged_record(text.decode(), rng, base).encode("utf-8", "replace")  # noqa: E731
        change(path, {"extra/focalnet.json": record})


def change(path: Path, parts: dict, more: dict | None = None) -> None:
    """Write an archive anew, with parts of it, by what their names end with, changed and others added."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    top = next(iter(files)).split("/")[0]
    for end, make in parts.items():
        for name in [name for name in files if name.endswith(end)]:
            files[name] = make(files[name])
    for name, content in (more or {}).items():
        files[f"{top}/{name}"] = content
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


CODE = "__import__('os').system('touch ../mark; touch mark')"


def forge_program(path: Path, rng: random.Random) -> None:
    """A program of torch that is to run code, or to write files, where it is opened or computes."""
    buffer = io.BytesIO()
    torch.save({"a": Evil()}, buffer)
    evil = rng.choice([buffer.getvalue(), rng.choice(BOMBS)])
    config, model = "model_weights_config.json", "models/model.json"

    def pickled(content: bytes) -> bytes:
        rows = json.loads(content)
        rows["config"][rng.choice(list(rows["config"]))] |= {"use_pickle": True, "path_name": "weight_0"}
        return json.dumps(rows).encode()

    def operator(content: bytes) -> bytes:
        text = content.decode()
        other = rng.choice(["torch.ops.aten.from_file.default", "torch.hub.load", "torch.load", "torch.ops.aten.save.default", "_operator.call",
                            "torch.os.system", "math.x", "#x:y", "torch.ops.aten.as_strided.default", "torch.ops.load_library"])  # fmt: skip
        return text.replace(
            f'"torch.ops.aten.{rng.choice(["gelu", "linear", "movedim"])}', f'"{other}", "x": "', 1
        ).encode()

    def names(content: bytes) -> bytes:
        text = content.decode()
        name = rng.choice(['"inputs"', '"addcmul"', '"p_network_head_bias"'])
        return text.replace(
            name, json.dumps(rng.choice([f"x={CODE}", f"x\n{CODE}\n", f'x"); {CODE} #', "x y"]))
        ).encode()

    def expression(content: bytes) -> bytes:
        rows = content.decode().split('"expr_str": "')
        number = rng.randrange(1, len(rows))
        other = rng.choice([CODE, f"Symbol({CODE})", "Integer(9)**9**9**9", "().__class__", "lambda: 1", "open('../mark', 'w')", "Pow(9, Pow(9, 99))"])  # fmt: skip
        rows[number] = other + rows[number][rows[number].index('"') :]
        return '"expr_str": "'.join(rows).encode()

    def guards(content: bytes) -> bytes:
        rows = json.loads(content)
        rows["guards_code"] = [CODE]
        return json.dumps(rows).encode()

    def spoilt(content: bytes) -> bytes:
        return dumps(spoiled(json.loads(content), rng, 2)).encode("utf-8", "replace")

    match rng.randrange(12):
        case 0:
            change(path, {config: pickled, "weights/weight_0": lambda _: evil})
        case 1:
            change(path, {"sample_inputs/model.pt": lambda _: evil})
        case 2:
            change(path, {}, {rng.choice(["data/weights/model.pt", "data/constants/model.pt"]): evil})
        case 3:
            parts = {"x/x.so": b"\x7fELF", "model.wrapper.cpp": CODE.encode(), "x.json": b"{}"}
            change(path, {}, {f"data/aotinductor/model/{name}": content for name, content in parts.items()})
        case 4:
            prefix = rng.choice(["custom_obj_0", "opaque_obj_0", "tensor_0"])
            row = {"path_name": prefix, "is_param": False, "use_pickle": True, "tensor_meta": None}
            rows = json.dumps({"config": {"x": row}}).encode()
            change(path, {"model_constants_config.json": lambda _: rows}, {f"data/constants/{prefix}": evil})
        case 5:  # the older form
            files = ["exported_program.json", "state_dict.pt", "constants.pt", "example_inputs.pt"]
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("version", "8.8")
                for name in files:
                    archive.writestr(f"serialized_{name}", evil if name.endswith(".pt") else b"{}")
        case 6:
            change(path, {model: operator})
        case 7:
            change(path, {model: names})
        case 8 | 9:
            change(path, {model: expression})
        case 10:
            change(path, {model: guards})
        case 11:
            part = rng.choice([config, model, "weights/weight_0"])
            ways = [lambda _: b"", lambda _: evil, *([spoilt] * 3 if part.endswith(".json") else [])]
            change(path, {part: rng.choice(ways)})


def embedding(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    """Images to embed that are none, and files of embeddings that are wrong."""
    run, good = str(base / "runs" / "pictures"), str(base / "pictures" / "rgb.png")
    if index % 3 == 0:
        suffix, content = strange_image(rng)
        path = folder / f"x.{suffix}"
        path.write_bytes(content)
        if rng.random() < 0.3:
            no_file(path, rng.choice(NO_FILES), rng)
        out = rng.choice(["out/x.npz", "out/x.parquet", "out/x.npz", "out/x.txt", "out", "/dev/full", "out/x/y.npz"])
        images = rng.choice([[path.name], [path.name, good], ["-"], ["nowhere", good]])
        model = rng.choice([run, run, run, str(base / "networks" / rng.choice(list(DATA)))])
        return [["embed", *images, "--model", model, "--out", out]], f"{path.name}\n{good}\n".encode()
    path = folder / f"x{rng.choice(['.npz', '.parquet'])}"
    shutil.copy(base / "embedded" / path.name, path)
    match rng.randrange(5):
        case 0:
            path.write_bytes(damaged(path.read_bytes(), rng))
        case 1:
            no_file(path, rng.choice(NO_FILES), rng)
        case 2:
            shutil.copy(base / "embedded" / f"x{rng.choice(['.npz', '.parquet'])}", path)
        case _ if path.suffix == ".npz":
            with np.load(path) as content:
                arrays = dict(content)
            field = rng.choice(list(arrays))
            arrays[field] = rng.choice([
                np.array([Evil()], object), np.zeros((0, 8), "f4"), np.zeros(3, "f4"), np.full((6, 8), np.nan, "f4"), np.zeros((6, 8), "f8"),
                np.array("x"), np.array(["x"] * 6), np.array(json.dumps({"model": rng.choice([1, "/dev/zero", "x/y", [], "x" * 9999])})),
                np.array("[" * 100_000), np.zeros((6, 0), "f4"), np.array(["\0"] * 6), np.full((6, 8), np.inf, "f4"),
            ])  # fmt: skip
            np.savez(path, **arrays)
        case _:
            import pyarrow as pa
            from pyarrow import parquet

            rows = rng.choice(
                [[[0.5] * 8] * 6, [[float("nan")] * 8] * 6, [None] * 6, ["x"] * 6, [[]] * 6, [[1.0], [1.0, 2.0]] * 3]
            )
            names = rng.choice([["a"] * 6, [None] * 6, [1] * 6])
            kind = rng.choice([None, pa.list_(pa.float32(), 8)]) if rows[0] == [0.5] * 8 else None
            about = rng.choice([{b"focalnet": dumps(value(rng)).encode("utf-8", "replace")}, {}, {b"focalnet": b"{"}])
            table = pa.table({rng.choice(["name", "x"]): names, "embedding": pa.array(rows, type=kind)})
            parquet.write_table(table.replace_schema_metadata(about), path)
    return [rng.choice([
        ["similar", path.name], ["similar", good, path.name], ["similar", path.name, "--duplicates", rng.choice(["nan", "-1", "2", "x"])],
        ["similar", good, path.name, "--top", rng.choice(["0", "-1", "9" * 30, "3"])], ["similar", "nowhere.png", path.name],
    ])], b""  # fmt: skip
