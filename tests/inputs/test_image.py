"""Every kind of image file becomes the RGB image that a person sees; everything else is one clear sentence."""

import http.server
import io
import pickle
import socketserver
import struct
import threading
import time
import warnings

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from torch._utils import ExceptionWrapper

from focalnet.inputs import decoding as images
from focalnet.inputs.image import BadImageError, head_of, load_image, size_of


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(width=32, height=24) -> Image.Image:
    """Smooth, all three channels different, no symmetry."""
    y, x = np.mgrid[:height, :width]
    channels = [x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_rgb_is_unchanged(kind):
    assert (pixels(load_image(encode(photograph(), kind))) == pixels(photograph())).all()


def test_every_kind_of_source(tmp_path):
    path = tmp_path / "a.png"
    photograph().save(path)
    for source in (path, str(path), path.read_bytes(), photograph()):
        assert (pixels(load_image(source)) == pixels(photograph())).all()


def test_result_is_a_new_picture_in_memory(tmp_path):
    source = photograph()
    load_image(source).putpixel((0, 0), (255, 255, 255))
    assert source.getpixel((0, 0)) == photograph().getpixel((0, 0))
    source.save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    loaded.getpixel((3, 3))
    pickle.loads(pickle.dumps(loaded))


def test_a_large_jpeg_is_decoded_at_the_fraction_that_is_enough(tmp_path):
    path = tmp_path / "large.jpg"
    photograph().resize((640, 480)).save(path, quality=95)
    whole = load_image(path)
    for enough, size in ((None, (640, 480)), (241, (640, 480)), (240, (320, 240)), (100, (160, 120)), (1, (80, 60))):
        assert load_image(path, enough=enough).size == size
    small = np.asarray(load_image(path, enough=240), float)
    assert np.abs(small - np.asarray(whole.reduce(2), float)).mean() < 3
    photograph().resize((640, 480)).save(tmp_path / "large.png")
    assert load_image(tmp_path / "large.png", enough=1).size == (640, 480)


def test_a_jpeg_belongs_to_whoever_read_it(tmp_path):
    path = tmp_path / "a.jpg"
    photograph().save(path)
    one, other = load_image(path), load_image(path)
    path.unlink()
    one.putpixel((0, 0), (1, 2, 3))
    assert one.getpixel((0, 0)) == (1, 2, 3) != other.getpixel((0, 0))
    copy = pickle.loads(pickle.dumps(other))
    assert (pixels(copy) == pixels(other)).all()
    assert (pixels(load_image(other)) == pixels(other)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    upright = photograph()
    stored = {  # how a camera stores the upright image, per EXIF tag
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load_image(encode(stored, "PNG", exif=exif))
    assert (pixels(loaded) == pixels(upright)).all()
    assert (pixels(load_image(loaded)) == pixels(upright)).all(), "a second pass turned it again"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_head_of_a_file_tells_the_size_that_is_read(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph().save(tmp_path / "a", kind, exif=exif)
    head = head_of(str(tmp_path / "a"))
    assert head.size == (24, 32)
    assert head.upright == load_image(tmp_path / "a").size[::-1]


@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", b"Exif\0\0MM"])
def test_broken_exif_does_not_spoil_the_picture(exif):
    assert load_image(encode(photograph(), "JPEG", exif=exif)).size == (32, 24)


def test_cmyk_jpeg_has_the_right_colors():
    data = encode(photograph().convert("CMYK"), "JPEG", quality=100, subsampling=0)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert b"Adobe" in data
    assert np.abs(pixels(load_image(data)) - pixels(photograph())).max() <= 6


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_binary_and_palette(mode):
    image = photograph().convert(mode)
    assert (pixels(load_image(encode(image, "PNG"))) == pixels(image.convert("RGB"))).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    image = photograph().convert(mode)
    alpha = Image.fromarray(np.repeat(np.array([[0, 128, 255]], dtype=np.uint8), [8, 12, 12], axis=1).repeat(24, 0))
    image.putalpha(alpha)
    color = pixels(photograph().convert("L").convert("RGB") if mode == "LA" else photograph())
    share = np.asarray(alpha).astype(float)[..., None] / 255
    loaded = pixels(load_image(encode(image, "PNG")))
    assert np.abs(loaded - (color * share + 255 * (1 - share))).max() <= 1
    assert (loaded[:, :8] == 255).all()


def test_transparent_palette():
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    one = load_image(encode(image, "PNG", transparency=1))
    assert pixels(one).tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]
    several = load_image(encode(image, "PNG", transparency=bytes([0, 255, 255])))
    assert pixels(several).tolist() == [[[255, 255, 255], [40, 50, 60], [70, 80, 90]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PGM", "big-endian TIFF"])
def test_grey_of_16_bits_keeps_its_whole_range(kind):
    values = np.linspace(0, 65535, 24 * 32).astype(np.uint16).reshape(24, 32)
    if kind == "PGM":
        data = b"P5\n32 24\n65535\n" + values.astype(">u2").tobytes()
    elif kind == "big-endian TIFF":
        data = big_endian_tiff(values)
    else:
        data = encode(Image.fromarray(values), kind)
    loaded = pixels(load_image(data))
    assert (loaded == np.round(values / 257)[..., None]).all()
    assert pixels(Image.open(io.BytesIO(data)).convert("RGB")).mean() > 250, "Pillow no longer clips to white"


def big_endian_tiff(values: np.ndarray) -> bytes:
    height, width = values.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 3, height), (279, 4, values.size * 2)]
    body = values.astype(">u2").tobytes()
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    return b"MM\0*" + struct.pack(">I", 8 + len(body)) + body + struct.pack(">H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], dtype=np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 200.0]], dtype=np.float32), [0, 100, 200]),
        (np.array([[-1000.0, 0.0, 1000.0]], dtype=np.float32), [0, 128, 255]),
        (np.array([[7.0, 7.0, 7.0]], dtype=np.float32) * 1000, [0, 0, 0]),
        (np.array([[0, 25700, 65535]], dtype=np.int32), [0, 100, 255]),
        (np.array([[-100000, 0, 100000]], dtype=np.int32), [0, 128, 255]),
    ],
)
def test_floats_and_wide_integers(values, expected):
    assert pixels(load_image(encode(Image.fromarray(values), "TIFF")))[0].tolist() == [[grey] * 3 for grey in expected]


def test_undefined_floats_are_refused():
    with pytest.raises(BadImageError, match="undefined values"):
        load_image(encode(Image.fromarray(np.array([[np.nan, 1]], dtype=np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_frame_of_many(kind):
    first, second = Image.new("RGB", (9, 7), "red"), Image.new("RGB", (9, 7), "blue")
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(first, kind, save_all=True, append_images=[second], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert (pixels(load_image(data)) == [255, 0, 0]).all()


@pytest.mark.parametrize("limit", [700, 300])  # 768 pixels: Pillow only warns of the first, refuses the second
def test_decompression_bomb(monkeypatch, tmp_path, limit):
    path = tmp_path / "bomb.png"
    photograph().save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(BadImageError, match=rf"bomb\.png has 768 pixels, the limit is {limit}"):
            load_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 768)
    assert load_image(path).size == (32, 24)


def test_orientation_in_the_text_of_a_png(tmp_path):
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n", zip=True)
    photograph().save(tmp_path / "turned.png", pnginfo=text)
    assert load_image(tmp_path / "turned.png").size == (24, 32)
    assert size_of(str(tmp_path / "turned.png"), turned=True) == (32, 24)


def test_icon_larger_than_its_head_says(monkeypatch):
    png = encode(photograph(), "PNG")
    data = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png
    assert load_image(data).size == (32, 24)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(BadImageError, match="768 pixels, the limit is 700"):
        load_image(data, name="icon")


def test_what_cannot_be_read_is_named(tmp_path):
    whole = encode(photograph(64, 64), "JPEG")
    files = {
        "empty.png": (b"", "the file is empty"),
        "text.png": (b"no image", "no image of a known format"),
        "cut.jpg": (whole[: len(whole) // 2], "(?i)truncated"),
        "cut.png": (encode(photograph(64, 64), "PNG")[:150], "cannot be read as an image"),
    }
    for name, (data, reason) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadImageError, match=reason) as caught:
            load_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        with pytest.raises(BadImageError, match=reason) as caught:
            load_image(data, name="shard:7")
        assert str(caught.value).startswith("shard:7 ")
    with pytest.raises(BadImageError, match="EPS is a program"):
        load_image(encode(photograph(), "EPS"))
    with pytest.raises(BadImageError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(BadImageError, match=r"no image .*/nowhere\.png"):
        load_image(tmp_path / "nowhere.png")


def test_rubbish_never_gets_past_the_error():
    generator = np.random.default_rng(0)
    whole = {kind: encode(photograph(), kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")}
    refused = 0
    for data in whole.values():
        for _ in range(60):
            broken = bytearray(data)
            for place in generator.integers(0, len(data), 8):
                broken[place] = generator.integers(256)
            try:
                pixels(load_image(bytes(broken)))
            except BadImageError:
                refused += 1
    assert refused > 30


def test_the_sentence_survives_a_worker_process():
    """A DataLoader carries an error over like this."""
    try:
        load_image(b"rubbish", name="folder/bad.png")
    except BadImageError:
        carried = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(BadImageError, match=r"^folder/bad\.png cannot be read") as caught:
        carried.reraise()
    assert "\n" not in str(caught.value)


@pytest.fixture
def server():
    """An HTTP server on this machine: /a.png, a slow /slow.png, an endless /big.png, everything else 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/a.png":
                self.answer(encode(photograph(), "PNG"))
            elif self.path == "/slow.png":
                time.sleep(1)
            elif self.path == "/big.png":
                self.answer(bytes(5000))
            else:
                self.send_error(404)

        def answer(self, data):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as running:  # no look-up of a host name
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_download(server, monkeypatch):
    assert (pixels(load_image(f"{server}/a.png")) == pixels(photograph())).all()
    monkeypatch.setattr(images, "DOWNLOAD_BYTES", 4000)
    for address, reason in {
        f"{server}/gone.png": "404",
        "http://nowhere.invalid/a.png": "check the address and the network",
        "http://[::1/a.png": "check the address and the network",
        f"{server}/big.png": "is more than",
    }.items():
        with pytest.raises(BadImageError, match=reason) as caught:
            load_image(address)
        assert address in str(caught.value)
    monkeypatch.setattr(images, "DOWNLOAD_SECONDS", 0.3)
    with pytest.raises(BadImageError, match=r"slow\.png cannot be downloaded .*timed out"):
        load_image(f"{server}/slow.png")
