"""The recipes of docs/scale.md, run as they stand there."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import focalnet
from class_files import dark_and_light

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text()
IMAGES, PART = 2000, 1000


def script(name, folder):
    """A script of the page, which begins with its name."""
    (code,) = re.findall(rf"```python\n(# {name}: .*?)```", PAGE, re.DOTALL)
    (folder / name).write_text(code)
    return folder / name


def environment(**more):
    paths = [str(Path(focalnet.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **more}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "model"
    focalnet.save_pretrained(focalnet.create_model("minifocal_32", classes=["a", "b", "c"]), folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of mixed sizes, of which each twentieth is broken in one of four ways."""
    folder, dice = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(IMAGES):
        height, width = dice.integers(8, 80, 2)
        path = folder / f"{number:04d}.{('jpg', 'png')[number % 2]}"
        Image.fromarray(dice.integers(0, 255, (height, width, 3), np.uint8)).save(path)
        if number % 20 == 7:
            whole = path.read_bytes()
            path.write_bytes([b"", b"no image", whole[: len(whole) // 3], bytes(200)][number // 20 % 4])
    return folder


def expected(model, photos):
    """What a `Predictor` says of each image, and of which it says nothing."""
    predictor, answers, broken = focalnet.Predictor(model), {}, set()
    for path in sorted(map(str, photos.iterdir())):
        try:
            answers[path] = predictor(path).to_dict()
        except focalnet.UserError:
            broken.add(path)
    return answers, broken


def test_images_are_labelled_by_ray_killed_and_gone_on_with(model, photos, tmp_path):
    pytest.importorskip("ray", reason="needs the extra ray")
    import pyarrow.parquet

    words = [sys.executable, script("label.py", tmp_path), model, photos, tmp_path / "answers"]
    settings = environment(PART=str(PART), RAY_USAGE_STATS_ENABLED="0", RAY_DATA_DISABLE_PROGRESS_BARS="1")
    with open(tmp_path / "log", "w") as log:
        begun = subprocess.Popen(list(map(str, words)), env=settings, stdout=log, stderr=log, start_new_session=True)
        while begun.poll() is None and not (tmp_path / "answers" / "part-00001.begun").exists():
            time.sleep(0.2)
        assert begun.poll() is None, (tmp_path / "log").read_text()
        os.killpg(begun.pid, signal.SIGKILL)
        begun.wait()
    first = tmp_path / "answers" / "part-00000"
    assert first.is_dir()
    assert not (tmp_path / "answers" / "part-00001").exists()
    since = first.stat().st_mtime_ns
    done = subprocess.run(list(map(str, words)), env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == since
    assert "part-00000 is done" not in done.stdout
    rows = [
        row for file in (tmp_path / "answers").glob("part-*/*") for row in pyarrow.parquet.read_table(file).to_pylist()
    ]
    answers, broken = expected(model, photos)
    assert len(broken) == IMAGES // 20
    assert sorted(row["path"] for row in rows) == sorted([*answers, *broken])
    assert {row["path"] for row in rows if row["error"]} == broken
    listed = (tmp_path / "answers" / "broken.txt").read_text().splitlines()
    assert len(listed) == len(broken)
    assert all(any(path in line for line in listed) for path in broken)
    for row in rows:
        if row["answer"]:
            found, wanted = json.loads(row["answer"]), answers[row["path"]]
            assert found["label"] == wanted["label"], row["path"]
            assert found["score"] == pytest.approx(wanted["score"], abs=1e-6)


def post(port, name, content):
    """The answer to one image, as curl -F sends it."""
    head = f'--x\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", head + content + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_a_server_answers_as_the_predictor(model, photos, tmp_path):
    pytest.importorskip("litserve", reason="needs the package litserve")
    port = free_port()
    words = [sys.executable, script("serve.py", tmp_path), model, port]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            list(map(str, words)), env=environment(), stdout=log, stderr=log, start_new_session=True
        )
    try:
        until = time.monotonic() + 300
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < until
                time.sleep(0.5)
        predictor = focalnet.Predictor(model)
        for number in range(6):
            path = photos / f"{number:04d}.{('jpg', 'png')[number % 2]}"
            found, wanted = post(port, path.name, path.read_bytes()), predictor(path).to_dict()
            assert found["label"] == wanted["label"]
            assert found["score"] == pytest.approx(wanted["score"], abs=1e-6)
        assert "broken.jpg" in post(port, "broken.jpg", b"no image")["error"]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_machines_meet_on_an_address(tmp_path, strategy):
    data = dark_and_light(tmp_path / "data", (32, 32), dark=8, light=8)
    words = f"-m focalnet train --data {data} --out {tmp_path / 'run'} --model minifocal_32 --weights None --epochs 1 "
    words += f"--image-size 32 --batch-size 8 --workers 0 --lr 1e-3 --check off --strategy {strategy}"
    launcher = "-m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-id x --rdzv-backend c10d --rdzv-endpoint "
    launcher += f"127.0.0.1:{free_port()}"
    command = [sys.executable, *launcher.split(), *words.split()]
    machines = [
        subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    told = [machine.communicate()[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(told)
    assert (tmp_path / "run" / "report.html").exists()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1
