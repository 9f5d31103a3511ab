"""The page in a headless Chromium: it answers as Python does, asks nobody else, and survives what is dropped."""

import base64
import io
import json
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import focalnet
from browser import Browser, find_browser
from command_line import run
from focalnet import inputs
from focalnet.app import build, open_server, runtime
from focalnet.app.description import check_shown
from focalnet.errors import UserError
from focalnet.models.create import create_model

SMALL = {"embed_dim": 8, "depths": (1, 1, 1), "focal_levels": 2}


def test_without_npm_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"^npm is needed once .* install Node\.js\.$"):
        runtime.fetch_runtime()


def test_another_archive_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def pack(folder):
        (folder / "other.tgz").write_bytes(b"something else")
        return folder / "other.tgz"

    monkeypatch.setattr(runtime, "_pack", pack)
    with pytest.raises(UserError, match="npm gave another onnxruntime-web"):
        runtime.fetch_runtime()
    assert not list((tmp_path / "focalnet").iterdir())


def test_a_folder_of_other_files_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years")
    code, _, err = run(capsys, "app", "minifocal_32", "--static", tmp_path)
    assert code == 2
    assert "holds something else than a page" in err
    code, _, err = run(capsys, "app", "minifocal_32", "--port", "70000")
    assert code == 2
    assert "--port is 70000" in err


def test_files_are_served_with_their_types(tmp_path):
    from urllib.request import urlopen

    for name in ("index.html", "main.js", "ort.wasm", "model.json", "model.onnx"):
        (tmp_path / name).write_text("x")
    with open_server(tmp_path, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        types = {}
        for name in ("", "main.js", "ort.wasm", "model.json", "model.onnx"):
            with urlopen(f"http://127.0.0.1:{server.server_port}/{name}", timeout=10) as response:
                types[name] = response.headers["Content-Type"]
        with pytest.raises(UserError, match=r"cannot be used \(taken\); give another --port"):
            open_server(tmp_path, server.server_port)
        server.shutdown()
        thread.join()
    assert types == {
        "": "text/html", "main.js": "text/javascript", "ort.wasm": "application/wasm", "model.json": "application/json",
        "model.onnx": "application/octet-stream",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (inputs.Video(), "this one takes video"),
        (inputs.Image(mean=(0.5,) * 4, std=(0.2,) * 4), "this network takes 4 channels"),
        (inputs.Image(range="percentile"), "trained with --range percentile"),
    ],
)
def test_what_the_page_cannot_show_is_said(how, says):
    with pytest.raises(UserError, match=says):
        check_shown(SimpleNamespace(preprocessing=how))


def image(height: int = 40, width: int = 50, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@contextmanager
def shown(model: torch.nn.Module, folder: Path) -> Iterator[tuple[Browser, focalnet.Predictor, str]]:
    """The page of a network in a browser, the exported network in Python, and the address."""
    if find_browser() is None:
        pytest.skip("chromium is not installed")
    if runtime.shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    focalnet.save_pretrained(model, folder / "network")
    build(folder / "network", folder / "page")
    with open_server(folder / "page", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with Browser() as browser:
                address = f"http://127.0.0.1:{server.server_port}/"
                browser.open(address)
                browser.evaluate(LISTEN)
                wait(browser, "the network", "document.getElementById('hint').textContent.startsWith('Drop')")
                yield browser, focalnet.Predictor(str(folder / "page" / "model.onnx")), address
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a small classifier."""
    torch.manual_seed(0)
    model = create_model("minifocal_32", classes=["ant", "bee", "fly"], **SMALL).eval()
    torch.nn.init.normal_(model.head.weight)
    with shown(model, tmp_path_factory.mktemp("page")) as parts:
        yield parts


LISTEN = """
globalThis.heard = [];
document.addEventListener("focalnet", ({ detail }) => heard.push(detail));
globalThis.dropped = (blob, name) => new Promise((done) => {
  document.addEventListener("focalnet", ({ detail: { kind, sentence, answer, maps } }) => {
    const shapes = maps && Object.fromEntries(Object.entries(maps).map(([key, map]) => [key, map.dims]));
    done({ kind, sentence, answer, shapes });
  }, { once: true });
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([blob], name));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
});
globalThis.bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
"""


def wait(browser: Browser, what: str, condition: str, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not browser.evaluate(condition):
        assert time.monotonic() < end, f"{what} did not come; logged: {browser.logged}"
        time.sleep(0.1)


def drop(browser: Browser, content: bytes, name: str = "image.png") -> dict:
    data = base64.b64encode(content).decode()
    return browser.evaluate(f"dropped(bytes('{data}'), {json.dumps(name)})")


@pytest.mark.slow
def test_the_page_answers_as_python_does(page):
    browser, predictor, _ = page
    turned = Image.Exif()
    turned[0x0112] = 6
    files = [
        encoded(image()), encoded(image(200, 133, 1)), encoded(image(33, 32, 2), exif=turned), encoded(image(31, 9, 3)),
        encoded(image(64, 64, 4), "WEBP", lossless=True), encoded(image(50, 50, 5), "BMP"),
        encoded(image(50, 70, 6).convert("P")), encoded(image(40, 44, 7).convert("L")), encoded(image(5, 300, 8)),
        encoded(image(480, 640, 9), "JPEG", quality=90, exif=turned, subsampling=0),
    ]  # fmt: skip
    for number, content in enumerate(files):
        found = drop(browser, content)
        assert found["kind"] == "answer", found
        wanted = dict(predictor(content).top)
        scores = dict(zip(("ant", "bee", "fly"), found["answer"]["scores"], strict=True))
        assert scores == pytest.approx(wanted, abs=1e-5), number
        first = browser.evaluate("document.querySelector('#rows .name').textContent")
        assert first == predictor(content).label
    assert found["shapes"]["gates_1"][:2] == [1, 3]


@pytest.mark.slow
def test_transparency_is_laid_on_white(page):
    browser, predictor, _ = page
    picture = image(64, 64)
    picture.putalpha(Image.linear_gradient("L").resize((64, 64)))
    content = encoded(picture)
    scores = drop(browser, content)["answer"]["scores"]
    wanted = dict(predictor(content).top)
    assert dict(zip(("ant", "bee", "fly"), scores, strict=True)) == pytest.approx(wanted, abs=2e-3)  # a level of 255


@pytest.mark.slow
def test_sounds_are_heard_as_python_hears_them(tmp_path):
    torch.manual_seed(0)
    model = create_model("sound_minifocal_32", classes=["ant", "bee", "fly"], **SMALL).eval()
    model.spec = model.spec.replace(preprocessing=inputs.Audio(seconds=0.5, input_size=64))
    model.head.norm.running_var.fill_(1e-4)
    rng = np.random.default_rng(0)
    with shown(model, tmp_path) as (browser, predictor, _):
        for seconds, channels, kind in ((0.5, 1, "FLOAT"), (0.8, 2, "FLOAT"), (0.2, 1, "FLOAT"), (0.5, 1, "PCM_16")):
            wave = rng.normal(0, 0.1, (round(16000 * seconds), channels)) * np.linspace(0, 1, channels + 1)[1:]
            buffer = io.BytesIO()
            soundfile.write(buffer, wave.astype(np.float32), 16000, format="WAV", subtype=kind)
            found = drop(browser, buffer.getvalue(), "sound.wav")
            assert found["kind"] == "answer", found
            wanted = dict(predictor(buffer.getvalue()).top)
            scores = dict(zip(("ant", "bee", "fly"), found["answer"]["scores"], strict=True))
            assert max(wanted.values()) - min(wanted.values()) > 1e-3
            assert scores == pytest.approx(wanted, abs=1e-5), (seconds, kind)
            assert browser.evaluate("document.getElementById('status').textContent") == f"sound.wav, {seconds} seconds"
        assert found["shapes"]["gates_1"] == [1, 3, 32, 32]
        wave = buffer.getvalue()
        bad = (b"", b"no sound", encoded(image()), wave[:20], wave[:44], rng.bytes(5000))
        for content in bad:
            found = drop(browser, content, "sound.wav")
            assert found["kind"] == "refused", content[:20]
            assert found["sentence"].startswith("sound.wav "), found
        assert drop(browser, wave, "sound.wav")["kind"] == "answer"
        assert browser.evaluate("document.querySelector('#file + *, label[for=file]').textContent") == "Choose a sound"
        assert browser.evaluate("document.querySelector('.switch').textContent") == " over the spectrogram"
        assert browser.evaluate("document.getElementById('heard').width") > 64
        assert not browser.evaluate("document.getElementById('heard-card').hidden")
        assert not browser.logged


@pytest.mark.slow
def test_nothing_is_asked_of_others(page):
    browser, _, address = page
    drop(browser, encoded(image()))
    assert len(browser.requests) > 10
    assert any(request.endswith("/model.onnx") for request in browser.requests), "the worker is not watched"
    assert all(request.startswith((address, "blob:", "data:")) for request in browser.requests), browser.requests
    other = address.replace("127.0.0.1", "localhost")
    assert browser.evaluate(f"fetch('{other}').then(() => 'came through', () => 'refused')") == "refused"
    shown = f"new Promise((done) => Object.assign(new Image(), {{ {ENDS}, src: '{other}examples/0.png' }}))"
    assert browser.evaluate(shown) == "refused"


ENDS = "onload: () => done('shown'), onerror: () => done('refused')"


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that says a size and holds other data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def hostile() -> list[tuple[str, bytes]]:
    """Two hundred files that are no images, or hardly."""
    rng = np.random.default_rng(0)
    kinds = {"PNG": {}, "JPEG": {}, "WEBP": {}, "GIF": {}, "BMP": {}, "AVIF": {}}
    whole = {kind: encoded(image(40, 50), kind, **options) for kind, options in kinds.items()}
    frames = [image(20, 20, seed) for seed in range(4)]
    files = [
        ("empty.png", b""), ("one.jpg", b"\xff"), ("text.txt", b"no image\n" * 50), ("long.txt", b"a" * 3_000_000),
        ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'),
        ("named.png", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="http://a.b/"/></svg>'),
        ("page.png", b"<!DOCTYPE html><script>alert(1)</script>"), ("thesis.pdf", b"%PDF-1.7\n%%EOF"),
        ("scan.tif", encoded(image(), "TIFF")), ("icon.ico", encoded(image(32, 32), "ICO")),
        ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), ("film.mp4", b"\0\0\0\x18ftypisom\0\0\0\0isomavc1"),
        ("archive.zip", b"PK\x03\x04" + bytes(100)), ("random.png", rng.bytes(5000)),
        ("huge.png", png_of(60_000, 60_000)), ("wide.png", png_of(2**31 - 1, 1)), ("none.png", png_of(0, 0)),
        ("hollow.png", png_of(50, 50)), ("bomb.png", png_of(4000, 4000, bytes(3 * 4000 * 4000 + 4000))),
        ("animated.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])),
        ("animated.webp", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])),
        ("animated.png", encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])),
        ("deep.png", encoded(Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40))),
        ("line.png", encoded(image(1, 3000))), ("dot.png", encoded(image(1, 1))),
        ("cmyk.jpg", encoded(image().convert("CMYK"), "JPEG")),
        ("<img src=x onerror=alert(1)>.png", b"no image"), ("a" * 5000 + ".png", b"no image"),
    ]  # fmt: skip
    for kind, content in whole.items():
        files += [(f"cut.{kind}", content[: int(len(content) * share)]) for share in np.linspace(0.02, 0.98, 12)]
        for _ in range(12):
            damaged = bytearray(content)
            for place in rng.integers(12, len(content), 8):
                damaged[place] = rng.integers(256)
            files.append((f"damaged.{kind}", bytes(damaged)))
    while len(files) < 200:
        files.append((f"mixed{len(files)}.png", whole["PNG"][: rng.integers(8, 60)] + rng.bytes(300)))
    return files


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_hostile_files_are_answered_by_a_sentence(page):
    browser, predictor, _ = page
    good = encoded(image())
    wanted = predictor(good).score
    files = hostile()
    assert len(files) >= 200
    browser.logged.clear()
    kinds = {"answer": 0, "refused": 0}
    for number, (name, content) in enumerate(files):
        found = drop(browser, content, name)
        kinds[found["kind"]] += 1
        if found["kind"] == "refused":
            status = browser.evaluate("document.getElementById('status').textContent")
            assert status == found["sentence"], name
            assert status.rstrip().endswith((".", ")")), (name, status)
            assert len(status) < 250, name
            assert not any(word in status for word in ("undefined", "could not be computed")), (name, status)
        else:
            assert sum(found["answer"]["scores"]) == pytest.approx(1), name
        if number % 20 == 0:
            assert max(drop(browser, good)["answer"]["scores"]) == pytest.approx(wanted, abs=1e-5), name
    assert kinds["refused"] > 120, kinds
    large = "dropped(new Blob(Array(300).fill(new Uint8Array(2 ** 20))), 'large.png')"
    assert browser.evaluate(large)["sentence"] == "large.png has more than 256 MiB: choose a smaller file."
    assert not browser.logged, browser.logged
    assert browser.evaluate("document.querySelectorAll('#status img').length") == 0
    assert max(drop(browser, good)["answer"]["scores"]) == pytest.approx(wanted, abs=1e-5)
