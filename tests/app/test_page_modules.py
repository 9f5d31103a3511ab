"""The page computes what the library does: its modules under node beside Pillow, torch and our own code."""

import io
import itertools
from types import SimpleNamespace

import numpy as np
import PIL
import pytest
import torch
from PIL import Image, ImageOps

from focalnet import inputs
from focalnet.models.detection.regions import paste_masks
from focalnet.models.dino.model import Dino, DinoOutputs
from focalnet.models.mask2former import postprocess as of_queries
from focalnet.models.segmentation import cut_and_resize, probabilities, resize
from focalnet.modulation import strongest
from node_modules import run

PILLOW = int(PIL.__version__.split(".")[0])
ANSWER = """
return job.map(({ model, outputs, size, original }) => {
  const tensors = Object.fromEntries(Object.entries(outputs).map(([name, row]) => [name, tensor(row)]));
  const found = answers.answer(model, tensors, size, original);
  for (const object of found.objects ?? []) if (object.mask) object.mask.data = told(object.mask.data);
  if (found.map) found.map = told(found.map);
  return found;
});
"""


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_resizing_is_pillows_and_torchs_to_the_bit(tmp_path):
    sizes = [
        ((40, 50), (32, 32)),
        ((33, 71), (64, 20)),
        ((7, 5), (14, 15)),
        ((3, 200), (9, 17)),
        ((64, 64), (64, 13)),
        ((45, 31), (32, 40)),
    ]
    jobs, expected = [], []
    for number, (((h, w), size), filter_) in enumerate(itertools.product(sizes, ("bilinear", "bicubic"))):
        image = noise(h, w, 3, seed=number)
        image = (image > 127) * np.uint8(255) if number % 3 == 0 else image  # overshoots are cut
        jobs += [{"image": image, "size": size, "filter": filter_, "as": name} for name in (PILLOW, "torch")]
        how = inputs.Image(interpolation=filter_)
        expected.append(np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling[filter_.upper()])))
        expected.append(how.resize_to(torch.tensor(image).permute(2, 0, 1), size).permute(1, 2, 0).numpy())
    code = "return job.map((r) => told(resize.resize(image(r.image), ...r.size, r.filter, r.as).data));"
    for job, found, wanted in zip(jobs, run(tmp_path, code, jobs), expected, strict=True):
        assert (found.reshape(wanted.shape) == wanted).all(), (
            job["image"].shape,
            job["size"],
            job["filter"],
            job["as"],
        )


def test_images_are_prepared_as_by_the_library(tmp_path):
    views = [
        inputs.Image(input_size=32, view=view, crop_pct=share)
        for view in ("crop", "squash", "pad")
        for share in (0.875, 1)
    ]
    hows = [
        *views,
        inputs.Image(input_size=(24, 40), crop_pct=0.9, interpolation="bilinear"),
        inputs.Image(input_size=32, crop_pct=1.5),  # sees black around the image
        inputs.Image(input_size=32, mean=(0.4,), std=(0.2,)),
        inputs.Image(input_size=24, long_side=48, crop_pct=1.0, interpolation="bilinear"),
        inputs.Image(input_size=(24, 40), long_side=40, interpolation="bilinear"),
    ]
    sizes = [(32, 32), (45, 31), (61, 200), (20, 9), (4, 100)]
    jobs, expected = [], []
    for number, (how, (h, w)) in enumerate(itertools.product(hows, sizes)):
        image, view = noise(h, w, 3, seed=number), how.view if how.long_side is None else "whole"
        model = {"view": view, "preprocessing": inputs.to_dict(how), "sizes": False, "pillow": PILLOW}
        jobs.append({"image": image, "model": model})
        expected.append(how(how.read(image)).numpy())
    code = """return job.map((r) => {
      const { data, height, width } = prepare.prepare(image(r.image), r.model);
      return { data: told(data), size: [height, width] };
    });"""
    for job, found, wanted in zip(jobs, run(tmp_path, code, jobs), expected, strict=True):
        assert found["size"] == list(wanted.shape[1:]), (job["model"], job["image"].shape)
        assert np.abs(found["data"].reshape(wanted.shape) - wanted).max() < 1e-6, (job["model"], job["image"].shape)


def test_what_is_smaller_than_the_input_is_padded_with_zeros(tmp_path):
    how = inputs.Image(input_size=64, long_side=64, interpolation="bilinear")
    image = noise(40, 64, 3)
    model = {"view": "whole", "preprocessing": inputs.to_dict(how), "sizes": True, "shape": [3, 64, 64]}
    code = "const { data, size } = prepare.prepare(image(job.image), job.model); return { data: told(data), size };"
    found = run(tmp_path, code, {"image": image, "model": model})
    assert found["size"] == [40, 64]
    padded = found["data"].reshape(3, 64, 64)
    assert np.allclose(padded[:, :40], how(how.read(image)).numpy(), atol=1e-6)
    assert (padded[:, 40:] == 0).all()


@pytest.mark.parametrize("length", [1600, 2400, 1000])
def test_sounds_are_prepared_and_drawn_as_by_the_library(tmp_path, length):
    how = inputs.Audio(seconds=0.1, n_fft=128, win_length=90, hop_length=45, input_size=32)
    wave = draws(length, scale=0.2).numpy()
    clip, maps = how(wave), draws(1, 3, 5, 7).numpy()
    code = """
    const wave = read(job.wave), { data, dims } = sound.prepareSound(wave, job.model);
    const levels = sound.levels(data, job.model.preprocessing);
    const seen = sound.spectrogram(data, job.model.preprocessing);
    const turned = sound.upright(tensor(job.maps));
    const size = [seen.height, seen.width, levels.height, levels.width];
    return { data: told(data), dims, levels: told(levels.data), size, turned: told(turned.data), shape: turned.dims };
    """
    model = {"preprocessing": inputs.to_dict(how), "shape": [1600]}
    found = run(tmp_path, code, {"wave": wave, "maps": maps, "model": model})
    assert found["dims"] == [1, 1600]
    assert (found["data"] == clip.numpy()).all()
    wanted = how.spectrogram(how.spectrum(clip[None] / clip.max()))[0].numpy().T[::-1]
    assert found["size"] == [32, 64, *wanted.shape]
    assert np.abs(found["levels"].reshape(wanted.shape) - wanted).max() < 1e-4
    assert found["shape"] == [1, 3, 7, 5]
    assert (found["turned"].reshape(1, 3, 7, 5) == maps.swapaxes(2, 3)[:, :, ::-1]).all()


def test_what_is_listened_to_is_what_the_library_keeps(tmp_path):
    modulator, pixels = draws(1, 5, 7, 3), noise(20, 40, 3)
    code = """
    const mask = sound.strongest(tensor(job.length), [20, 40]), grey = sound.kept(image(job.image), mask);
    return { mask: told(mask), grey: told(grey.data) };
    """
    found = run(tmp_path, code, {"length": modulator.norm(dim=-1).numpy(), "image": pixels})
    mask = strongest(modulator, (20, 40))[0].numpy()
    assert (found["mask"].reshape(20, 40) == mask).all()
    grey = found["grey"].reshape(20, 40, 3)
    assert (grey[mask] == pixels[mask]).all()
    wanted = (pixels[~mask].mean(1, keepdims=True) * 0.7 + 60).astype(np.uint8).repeat(3, 1)
    assert np.abs(grey[~mask].astype(int) - wanted).max() <= 1


def draws(*shape: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def arrays(**tensors: torch.Tensor) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in tensors.items()}


def test_classes_labels_and_pixels(tmp_path):
    logits, maps = draws(1, 7), draws(1, 4, 32, 48)
    size, original = [24, 40], [37, 61]
    jobs = [
        {
            "model": {"outputs": ["map_0"], "reader": {"kind": kind, "threshold": 0.5}},
            "outputs": {"map_0": logits.numpy()},
        }
        for kind in ("classes", "labels")
    ]
    pixels = {"model": {"outputs": ["logits"], "reader": {"kind": "pixels"}}, "outputs": {"logits": maps.numpy()}}
    jobs += [{**pixels, "size": size, "original": original}, {**pixels, "size": size, "original": size}]
    classes, labels, resized, same = run(tmp_path, ANSWER, jobs)
    assert np.allclose(classes["scores"], logits.softmax(-1)[0], atol=1e-6)
    assert classes["order"] == logits[0].argsort(descending=True).tolist()
    assert np.allclose(labels["scores"], logits.sigmoid()[0], atol=1e-6)
    for found, whole in ((resized, original), (same, size)):
        wanted = probabilities(maps, torch.tensor([size]), torch.tensor([whole]))[0].argmax(0).numpy()
        assert (found["map"].reshape(wanted.shape) == wanted).all()


def test_objects_of_queries_and_of_detections(tmp_path):
    outputs = DinoOutputs(draws(1, 20, 3, scale=2), draws(1, 20, 4).sigmoid())
    size, original = [48, 64], [60, 81]
    sizes, originals = torch.tensor([size]), torch.tensor([original])
    wanted = Dino.postprocess(SimpleNamespace(options=SimpleNamespace(detections=40)), outputs, sizes, originals)[0]
    corners = torch.tensor(
        [[[5.2, 3.9, 40.1, 30.7], [-3.0, 10.0, 20.5, 47.9], [30.0, 30.0, 30.0, 35.0], [1.0, 1, 2, 2]]]
    )
    scores, labels = torch.tensor([[0.9, 0.8, 0.7, 0.2]]), torch.tensor([[2, 0, 1, 1]])
    masks = draws(1, 4, 28, 28, scale=2).sigmoid()
    where = {"size": size, "original": original}
    queries, objects = run(tmp_path, ANSWER, [
        {"model": {"reader": {"kind": "queries", "most": 40, "threshold": 0.5}}, **where,
         "outputs": arrays(**outputs._asdict())},
        {"model": {"reader": {"kind": "objects", "threshold": 0.5}}, **where,
         "outputs": arrays(boxes=corners, scores=scores, labels=labels, mask_probs=masks)},
    ])  # fmt: skip
    wanted = wanted.take(wanted.scores >= 0.5)
    assert 3 < len(wanted) < 40
    assert [row["label"] for row in queries["objects"]] == wanted.labels.tolist()
    assert np.allclose([row["score"] for row in queries["objects"]], wanted.scores, atol=1e-6)
    assert np.allclose([row["box"] for row in queries["objects"]], wanted.boxes, atol=1e-4)
    boxes = corners[0, :3] * torch.tensor([81 / 64, 60 / 48] * 2)
    pasted = paste_masks(masks[0, :3], boxes, tuple(original)).numpy()
    assert [row["label"] for row in objects["objects"]] == [2, 0, 1]
    for row, box, mask in zip(objects["objects"], boxes, pasted, strict=True):
        assert np.allclose(row["box"], box, atol=1e-4)
        assert (whole_mask(row["mask"], original) == mask).all()


def whole_mask(window: dict, size: list[int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    rows, columns = window["height"], window["width"]
    part = window["data"].reshape(rows, columns)
    mask[window["top"] : window["top"] + rows, window["left"] : window["left"] + columns] = part
    return mask


def test_what_queries_with_masks_say(tmp_path):
    classes, masks = draws(1, 12, 5, scale=4), draws(1, 12, 16, 16, scale=4)
    size, original = [50, 64], [33, 45]
    model = {"shape": [3, 64, 64]}
    kinds = {
        "regions": {},
        "instances": {"threshold": 0.3, "most": 20},
        "panoptic": {"threshold": 0.5, "things": [0, 1]},
    }
    outputs = arrays(class_logits=classes, mask_logits=masks)
    regions, instances, panoptic = run(tmp_path, ANSWER, [
        {"model": {**model, "reader": {"kind": kind, **more}}, "outputs": outputs, "size": size, "original": original}
        for kind, more in kinds.items()
    ])  # fmt: skip
    onto = cut_and_resize(resize(masks[0], (64, 64)), tuple(size), tuple(original))
    wanted = of_queries.semantic(classes[0], onto).argmax(0).numpy()
    assert (regions["map"].reshape(original) == wanted).all()
    found = of_queries.instances(classes[0], onto, top=20)
    found = found.take(found.scores >= 0.3)
    assert len(found) > 3
    assert [row["label"] for row in instances["objects"]] == found.labels.tolist()
    assert np.allclose([row["score"] for row in instances["objects"]], found.scores, atol=1e-5)
    for row, box, mask in zip(instances["objects"], found.boxes, found.masks.numpy(), strict=True):
        assert row["box"] == box.tolist()
        assert (whole_mask(row["mask"], original) == mask).all()
    ids, segments = of_queries.panoptic(classes[0], onto, [0, 1], object_mask_threshold=0.5)
    assert [(row["id"], row["label"]) for row in panoptic["segments"]] == [(row.id, row.label) for row in segments]
    assert (panoptic["map"].reshape(original) == ids.numpy()).all()


def encoded(image: Image.Image, kind: str, **options: object) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return np.frombuffer(buffer.getvalue(), np.uint8)


INSPECT = """
return job.map((row) => {
  try {
    const found = files.inspect(read(row), "it", 1e6);
    return { ...found, bytes: told(found.bytes) };
  } catch (error) {
    if (!(error instanceof files.Refused)) throw error;
    return { refused: error.message };
  }
});
"""


def test_files_are_looked_at_before_they_are_decoded(tmp_path):
    image = Image.fromarray(noise(13, 22, 3))
    turned = Image.Exif()
    turned[0x0112] = 6
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    whole = {
        "PNG": {"exif": turned}, "JPEG": {"exif": turned}, "WEBP": {"exif": turned, "lossless": True}, "GIF": {},
        "BMP": {}, "AVIF": {},
    }  # fmt: skip
    files = [encoded(image, kind, **options) for kind, options in whole.items()]
    files += [encoded(image, "WEBP"), encoded(image, "JPEG", xmp=xmp), encoded(image, "JPEG", progressive=True)]
    found = run(tmp_path, INSPECT, files)
    for row, file in zip(found, files, strict=True):
        assert (row.get("height"), row.get("width")) == (13, 22), row
        assert len(row["bytes"]) == len(file)
    assert [row["orientation"] for row in found] == [6, 6, 6, 1, 1, 1, 1, 8, 1]
    for row, kind in zip(found[:3], whole, strict=False):
        neutral = Image.open(io.BytesIO(row["bytes"].tobytes()), formats=[kind]) if kind != "PNG" else None
        assert neutral is None or neutral.getexif()[0x0112] == 1
    broken = [file[: len(file) * 2 // 3] for kind, file in zip(whole, files, strict=False) if kind != "AVIF"]
    assert all("is damaged" in row["refused"] for row in run(tmp_path, INSPECT, broken))


def test_no_image_is_a_sentence(tmp_path):
    files = [
        (b"", "is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"<?xml version='1.0'?>\n<!-- x -->\n<svg/>", "an SVG drawing"),
        (b"not an image\n", "text"),
        (b"II*\0\x08\0\0\0", "a TIFF"),
        (b"%PDF-1.7", "a PDF"),
        (b"PK\x03\x04", "an archive"),
        (b"\0\0\0\x20ftypisom", "a film"),
        (b"\0\0\0\x20ftypheic", "a HEIC image"),
        (b"\x00\x01\x02", "no image of a known format"),
        (b"\x89PNG\r\n\x1a\n", "is damaged"),
        (b"\xff\xd8\xff", "is damaged"),
        (b"GIF89a", "is damaged"),
        (b"RIFF\x04\0\0\0WEBP", "says no size"),
        (b"BM" + bytes(12), "is damaged"),
    ]
    found = run(tmp_path, INSPECT, [np.frombuffer(content, np.uint8) for content, _ in files])
    for row, (content, says) in zip(found, files, strict=True):
        assert says in row["refused"], content


def test_an_image_of_too_many_pixels_is_a_sentence(tmp_path):
    (row,) = run(tmp_path, INSPECT, [encoded(Image.new("1", (5000, 5000)), "PNG")])
    assert row["refused"] == "it has 25,000,000 pixels, more than 1,000,000: make it smaller."


def test_images_are_turned_as_exif_says(tmp_path):
    pixels = noise(5, 8, 3)
    code = "return job.turns.map((n) => { const r = pixels.turned(image(job.image), n); return told(r.data); });"
    found = run(tmp_path, code, {"image": pixels, "turns": list(range(10))})
    for orientation, data in enumerate(found):
        image = Image.fromarray(pixels)
        image.getexif()[0x0112] = orientation
        wanted = np.asarray(ImageOps.exif_transpose(image))
        assert (data.reshape(wanted.shape) == wanted).all(), orientation


def test_the_context_of_a_position_is_its_gates_times_what_they_reach(tmp_path):
    kernels = [np.ones((3, 3)).tolist(), (-np.eye(5)).tolist()]
    gates = draws(1, 3, 9, 11).numpy()
    code = """const reach = context.reachOf(job.kernels);
    const { weights, gates } = context.contextOf(tensor(job.gates), reach, 4, 5);
    return { weights: told(weights), gates, sides: reach.map((level) => level.side) };"""
    found = run(tmp_path, code, {"kernels": kernels, "gates": gates})
    here = np.abs(gates[0, :, 4, 5])
    assert np.allclose(np.abs(found["gates"]), here)
    assert found["sides"] == [3, 7]
    weights = found["weights"].reshape(9, 11)
    assert weights.sum() == pytest.approx(here.sum(), rel=1e-5)  # every level spreads its gate
    assert weights[0, 0] == pytest.approx(here[2] / 99, rel=1e-5)  # out of the kernels' reach
    assert weights[3, 5] == pytest.approx(here[0] / 9 + here[1] * 2 / 45 + here[2] / 99, rel=1e-5)
