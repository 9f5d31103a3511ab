"""What the values, the channels and the shape of an image mean to a network, and what is said of them."""

import dataclasses
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

import focalnet
from focalnet import inputs
from focalnet.errors import MissingExtraError, UserError
from focalnet.inputs import tiff
from focalnet.inputs.image import BadImageError, Bands, ChannelsError, load_image, pixels_of
from focalnet.inputs.tensors import planes_of

tifffile = pytest.importorskip("tifffile")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bands(shape=(30, 40, 5), kind=np.uint8, **options) -> tuple[np.ndarray, bytes]:
    values = np.random.default_rng(0).integers(0, 255, shape).astype(kind)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return values, buffer.getvalue()


def wide_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits per color, which Pillow does not write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.fixture(scope="module")
def dark() -> np.ndarray:
    """12 bits of a microscope in 16."""
    return np.random.default_rng(0).integers(200, 4000, (64, 64)).astype(np.uint16)


def test_range_policies_of_12_bits(dark):
    data = encoded(Image.fromarray(dark), "TIFF")
    read = {policy: np.asarray(load_image(data, values=policy)) for policy in ("auto", "8bit", "full", "percentile")}
    assert (read["auto"] == read["full"]).all()
    assert read["auto"].max() == 16
    assert (read["8bit"] == np.minimum(dark, 255)[..., None]).all()
    assert len(np.unique(read["percentile"])) > 250
    assert (np.asarray(load_image(dark, values="percentile")) == read["percentile"]).all(), "an array is the same"
    again = load_image(load_image(data, values="percentile"), values="percentile")
    assert (np.asarray(again) == read["percentile"]).all(), "a second pass stretched it again"


@pytest.mark.parametrize(
    ("values", "policy", "expected"),
    [
        (np.float32([[0, 0.5, 1, 3]]), "full", [0, 128, 255, 255]),
        (np.float32([[0, 0.5, 1, 300]]), "8bit", [0, 1, 1, 255]),
        (np.float32([[-1, 0.5, 1]]), "percentile", [0, 191, 255]),
        (np.int32([[0, 100, 70000]]), "8bit", [0, 100, 255]),
        (np.int32([[-5, 25700, 70000]]), "full", [0, 100, 255]),
        (np.uint8([[10, 60, 110]]), "full", [10, 60, 110]),
    ],
)
def test_range_policies_of_other_types(values, policy, expected):
    read = load_image(encoded(Image.fromarray(values), "TIFF"), values=policy)
    assert np.asarray(read)[0, :, 0].tolist() == expected


def test_colors_of_16_bits_keep_them_under_a_policy(dark):
    values = np.stack([dark, dark // 2, dark // 4], 2)
    for data in (wide_png(values), bands_of(values, photometric="rgb")):
        assert len(np.unique(np.asarray(load_image(data)))) <= 16
        read = np.asarray(load_image(data, values="percentile"))
        assert len(np.unique(read)) > 200
        assert (read[..., 0].astype(int) - read[..., 2]).min() >= 0, "one range for the three colors"
    opaque = np.concatenate([values, np.full((64, 64, 1), 65535, np.uint16)], 2)
    assert (np.asarray(load_image(wide_png(opaque), values="percentile")) == read).all()


def bands_of(values: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def test_what_is_said_of_dark_and_stretched_images(dark):
    how = inputs.Image()
    images = [how.read(encoded(Image.fromarray(dark), "TIFF")), how.read(wide_png(np.stack([dark] * 3, 2)))]
    (line,) = how.remarks(images)
    assert "2 of 2" in line
    assert " to 3999" in line
    assert "--range percentile" in line
    for policy in ("8bit", "full", "percentile"):
        assert not dataclasses.replace(how, range=policy).remarks(images)
    bright = how.read(encoded(Image.fromarray((dark * 16).astype(np.uint16)), "PNG"))
    assert not how.remarks([*images, bright]), "the images together use the range"
    (line,) = how.remarks([how.read(np.float32([[0, 4000]] * 2))])
    assert "own range" in line
    assert not how.remarks([how.read(np.uint8([[0, 16]] * 2))])


def test_undefined_values_are_a_sentence():
    values = np.full((4, 4, 3), np.nan, np.float32)
    for source in (values, bands_of(values, photometric="rgb"), values[..., 0]):
        with pytest.raises(BadImageError, match="undefined values"):
            load_image(source)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((30, 40, 5), {"photometric": "minisblack", "planarconfig": "contig"}),
        ((5, 30, 40), {"photometric": "minisblack", "planarconfig": "separate"}),
        ((5, 30, 40), {}),  # a page per band
        ((30, 40, 5), {}),  # a page per row: how tifffile writes such an array when it is told nothing
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_five_bands_however_they_lie(shape, options, kind):
    values, data = bands(shape, kind, **options)
    values = values if shape[2] == 5 else values.transpose(1, 2, 0)
    image = load_image(data, channels=5, values="8bit")
    assert isinstance(image, Bands)
    assert image.size == (40, 30)
    assert (image.values == values).all()
    assert (pixels_of(image).numpy() == values.transpose(2, 0, 1)).all()
    assert (np.asarray(image.convert("RGB")) == values[..., :3]).all()
    with pytest.raises(ChannelsError, match="5 channels, and the network takes 4"):
        load_image(data, channels=4)
    if options or shape[2] == 5:
        with pytest.raises(ChannelsError, match=r"the network takes 3: .* --channels 5"):
            load_image(data)


def test_four_bands_of_a_tiff_are_channels_and_of_a_png_transparency():
    values, data = bands((30, 40, 4))
    assert (load_image(data, channels=4).values == values).all()
    white = load_image(data)  # ExtraSamples says transparency, and so a network of three takes it, which is told
    (line,) = inputs.Image(input_size=30).remarks([white])
    assert "--channels 4" in line
    _, plain = bands((30, 40, 4), photometric="rgb", extrasamples=[0])
    with pytest.raises(ChannelsError, match="--channels 4"):
        load_image(plain)
    png = encoded(Image.fromarray(values), "PNG")
    assert (np.asarray(load_image(png)) == np.asarray(white)).all()
    assert not inputs.Image(input_size=30).remarks([load_image(png)])
    assert (load_image(png, channels=4).values == values).all()


def test_one_channel():
    colors = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3)).astype(np.uint8))
    grey = load_image(encoded(colors, "PNG"), channels=1)
    assert (grey.values[..., 0] == np.asarray(colors.convert("L"))).all()
    assert (load_image(colors.convert("L"), channels=1).values == grey.values).all()
    assert np.asarray(load_image(np.asarray(colors.convert("L")))).shape == (9, 7, 3)


def test_a_band_tiff_without_tifffile(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(MissingExtraError, match=r"focalnet\[tiff\]"):
        load_image(bands(photometric="minisblack", planarconfig="contig")[1], channels=5)


def test_orientation_of_bands():
    for orientation in range(1, 9):
        values, data = bands(
            photometric="minisblack", planarconfig="contig", extratags=[(274, 3, 1, orientation, True)]
        )
        upright = load_image(data, channels=5).values
        plain = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(values[..., :3]).save(plain, "PNG", exif=exif)
        assert (upright[..., :3] == np.asarray(load_image(plain.getvalue()))).all()


def test_mean_and_std_of_other_channels():
    how = inputs.Image(mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    assert how.for_channels(5).mean == (0.1, 0.2, 0.3, 0.1, 0.2)
    assert how.for_channels(1).std == (2.0,)
    assert inputs.from_dict({**inputs.to_dict(how.for_channels(5))}) == how.for_channels(5)
    old = {name: value for name, value in inputs.to_dict(inputs.Image()).items() if name not in ("view", "range")}
    assert "max_pixels" not in old
    assert inputs.from_dict({**old, "max_pixels": 10**15}) == inputs.Image(), "no stranger's weights allow a bomb"
    assert inputs.from_dict(old) == inputs.Image()
    with pytest.raises(UserError, match="one per channel"):
        inputs.Image(mean=(0.5,))


def test_views_of_a_wide_image():
    """The case: of a picture ten times as wide as high, a crop sees a tenth."""
    empty = np.full((40, 400, 3), 30, np.uint8)
    marked = empty.copy()
    marked[:, :170] = marked[:, 230:] = (220, 40, 40)
    how = inputs.Image(input_size=32, crop_pct=1.0)
    seen = {view: dataclasses.replace(how, view=view) for view in ("crop", "squash", "pad")}
    assert torch.equal(how(how.read(empty)), how(how.read(marked)))
    for view in ("squash", "pad"):
        one, two = (seen[view](how.read(image)) for image in (empty, marked))
        assert one.shape == (3, 32, 32)
        assert not torch.equal(one, two)
        assert not seen[view].remarks([how.read(empty)])
    assert seen["pad"](how.read(empty))[:, :14].abs().max() < 0.02, "the border is the mean"
    (line,) = how.remarks([how.read(empty)] * 3)
    assert "middle 10%" in line
    assert "--resize" in line
    assert not how.remarks([how.read(empty)] + [how.read(empty[:, :60])] * 9), "one in ten"


def test_oblong_inputs():
    image = inputs.Image().read(np.random.default_rng(0).integers(0, 255, (40, 90, 3)).astype(np.uint8))
    for view in ("crop", "squash", "pad"):
        how = inputs.Image(input_size=(16, 64), view=view, crop_pct=0.8)
        assert how(image).shape == (3, 16, 64)
        assert inputs.from_dict(inputs.to_dict(how)) == how
    assert inputs.Image(input_size=(32, 32)) == inputs.Image(input_size=32)
    assert torch.equal(inputs.Image(input_size=(40, 90), crop_pct=1.0, view="squash")(image),
                       inputs.Image(input_size=(40, 90), crop_pct=1.0)(image))  # fmt: skip
    whole = inputs.Image(input_size=(32, 64), long_side=64)
    assert whole.whole_size((40, 90)) == (28, 64)
    assert whole(image).shape == (3, 28, 64)


@pytest.fixture(scope="module")
def predictor():
    return focalnet.Predictor(focalnet.create_model("minifocal_32", classes=["cat", "dog"]))


def test_a_predictor_takes_what_cameras_give(predictor):
    """The case: an array (H, W, 3), uint8; and everything else of its kind."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    expected = predictor(Image.fromarray(pixels)).top
    data = encoded(Image.fromarray(pixels), "PNG")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    same = [pixels, tensor, tensor.double() / 255, tensor.float().requires_grad_(), pixels.astype(np.float64)]
    for source in [*same, pixels.astype(np.uint16) * 257, data, bytearray(data), memoryview(data), io.BytesIO(data)]:
        assert predictor(source).top == expected
    assert predictor(pixels[..., 0]).top == predictor(Image.fromarray(pixels[..., 0])).top
    assert [prediction.label for _, prediction in predictor.stream([pixels, pixels])] == [expected[0][0]] * 2


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ([np.zeros((4, 4, 3), np.uint8)], "of the type list: give a path.*several images go to `Predictor.stream`"),
        (None, "of the type NoneType"),
        ({"a": 1}, "of the type dict"),
        (7, "of the type int"),
        (np.zeros((4, 4, 3), np.int64), "type int64 is no image: give its values as uint8, uint16"),
        (np.zeros((4, 4), bool), "type bool"),
        (np.zeros((3, 40, 40), np.uint8), r"\(H, W, 3\) or \(H, W\) is taken: put the channels last"),
        (torch.zeros(40, 40, 3), r"\(3, H, W\) or \(H, W\) is taken: put the channels first"),
        (torch.zeros(2, 3, 40, 40), "one by one, or all to `Predictor.stream`"),
        (np.zeros((40, 40, 4), np.uint8), r"\(H, W, 3\) or \(H, W\) is taken"),
        (np.zeros((0, 4)), "no image"),
        (io.StringIO("text"), "cannot be read as an image"),
        (io.BytesIO(b"text"), "no image of a known format"),
    ],
)
def test_what_is_no_image_is_named(predictor, source, sentence):
    with pytest.raises(UserError, match=sentence):
        predictor(source)


def test_large_images_by_option(monkeypatch):
    data = encoded(Image.new("RGB", (30, 20)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 299)  # twice of it is what Pillow refuses
    with pytest.raises(BadImageError, match=r"600 pixels, the limit is 299: .* --max-pixels 600"):
        load_image(data)
    assert load_image(data, max_pixels=600).size == (30, 20)
    with pytest.raises(BadImageError, match="600 pixels, the limit is 500"):
        load_image(data, max_pixels=500)
    _, five = bands(photometric="minisblack", planarconfig="contig")
    with pytest.raises(BadImageError, match="1200 pixels, the limit is 1000"):
        load_image(five, channels=5, max_pixels=1000)


def test_a_tiff_of_pages_is_told():
    two = encoded(Image.new("RGB", (9, 7)), "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 7))])
    (line,) = inputs.Image(input_size=7).remarks([load_image(two)])
    assert "several pages" in line


def test_tags_of_a_tiff_that_are_nonsense():
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[270] = '{"shape": [1, "a", null]}'
    assert load_image(encoded(Image.new("L", (9, 7)), "TIFF", tiffinfo=info)).size == (9, 7)
    assert tiff._shape("[" * 100000) == ()


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (224, 300)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_planes_are_the_pixels_side_by_side(mode, size):
    channels = {"RGB": 3, "L": 1, "RGBA": 4}[mode]
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], channels), np.uint8)
    image = Image.fromarray(noise.squeeze(2) if channels == 1 else noise)
    planes = planes_of(image)
    assert planes.is_contiguous()
    assert torch.equal(planes, pixels_of(image))
    planes.zero_()
    assert (np.asarray(image).reshape(noise.shape) == noise).all()
