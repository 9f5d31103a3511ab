"""Films, cameras and streams: strides, live sources that lose no time, objects with numbers, and how many there are."""

import contextlib
import csv
import http.server
import itertools
import json
import os
import signal
import sys
import threading
import time
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import focalnet
from command_line import run
from focalnet.cli import main
from focalnet.errors import UserError
from focalnet.inputs import video
from focalnet.inputs.files import find_images
from focalnet.inputs.video import Frames, Newest, VideoWriter, is_live, is_video, read_frames
from focalnet.predict import Predictor
from focalnet.structures import Detections
from focalnet.tasks.detect import Detect, DetectionPrediction

pytestmark = pytest.mark.filterwarnings("ignore:OpenCV")  # supervision can do without, and says so

CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    small = {"embed_dim": 8, "depths": (1, 1, 1, 1), "fpn_channels": 8, "representation_size": 8}
    return focalnet.create_model("mask_rcnn_minifocal_128", classes=list(CLASSES), **small)


@pytest.fixture
def clip(tmp_path):
    """A square that walks to the right, 4 pixels per frame."""
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, Fraction(10)) as writer:
        for number in range(8):
            image = Image.new("RGB", (96, 64), "white")
            ImageDraw.Draw(image).rectangle((8 + 4 * number, 20, 31 + 4 * number, 43), fill="red")
            writer.write(image)
    return path


@pytest.fixture
def seeing(monkeypatch):
    """A detector of red squares, whose score sinks below the threshold in frame 4."""
    calls = itertools.count()

    def predict_images(self, model, images, sizes, originals):
        predictions = []
        for image, original in zip(images, originals, strict=True):
            red = image[0] - image[1] > 1
            rows, columns = red.any(1).nonzero().flatten(), red.any(0).nonzero().flatten()
            factor = original[1] / image.shape[2]
            box = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]).float() * factor
            score = 0.3 if next(calls) == 4 else 0.9
            found = Detections(box, torch.tensor([score]), torch.tensor([1]))
            predictions.append(
                DetectionPrediction(found.take(found.scores >= self.least_score(model.spec)), CLASSES, original)
            )
        return predictions

    monkeypatch.setattr(Detect, "predict_images", predict_images)


class Nearest:
    """A tracker of one object that has a number as long as its box overlaps the one before."""

    def __init__(self):
        self.box, self.number = None, -1

    def update(self, detections):
        ids = []
        for box in detections.xyxy:
            if self.box is None or box[0] >= self.box[2]:
                self.number += 1
            self.box = box
            ids.append(self.number)
        detections.tracker_id = np.array(ids, dtype=int)
        return detections


def test_every_so_many_frames_one(clip, detector):
    assert [place for place, _ in read_frames(clip, 3)] == [
        {"frame": number, "seconds": number / 10} for number in (0, 3, 6)
    ]
    assert Frames(clip, 4).rate == Fraction(10, 4)
    with pytest.raises(UserError, match="--stride is 0; give 1 or more"):
        Frames(clip, 0)
    assert [place["frame"] for place, _ in Predictor(detector).video(clip, stride=5)] == [0, 5]


def test_what_is_live(tmp_path, monkeypatch):
    for source in ("webcam:0", "0", "rtsp://door:554/x", "http://host/camera.mjpg?x=1", "https://host/live.m3u8"):
        assert is_live(source)
        assert is_video(source)
        assert find_images([source]) == [source]
    for source in ("clip.mp4", "http://host/clip.mp4", "http://host/a.jpg", "one", 0):
        assert not is_live(source)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").write_text("a file")
    assert not is_live("0")


def test_cameras_and_streams_that_are_not_there_are_refused(detector, monkeypatch):
    monkeypatch.setattr(video, "PATIENCE", 0.5)
    for source in ("webcam:97", "97", "rtsp://127.0.0.1:1/door", "http://127.0.0.1:1/camera.mjpg"):
        with pytest.raises(UserError, match=rf"the (camera|stream) {source} cannot be read \(.*\): check that it is"):
            next(Predictor(detector).video(source))
    monkeypatch.setattr(video.sys, "platform", "win32")
    with pytest.raises(UserError, match="give webcam:NAME"):
        Frames("webcam:0")
    monkeypatch.setattr(video.sys, "platform", "plan9")
    with pytest.raises(UserError, match="cameras of plan9 are not known"):
        Frames("webcam:0")


def test_of_what_is_live_the_newest_is_taken():
    go, ready = threading.Event(), threading.Event()

    def items():
        yield 0
        go.wait()
        yield from range(1, 50)
        ready.set()

    newest = Newest(items())
    taken = iter(newest)
    assert next(taken) == 0
    go.set()
    ready.wait()
    assert list(taken) == [49]
    assert newest.skipped == 48

    def broken():
        yield 1
        raise UserError("it broke off")

    with pytest.raises(UserError, match="it broke off"):
        list(Newest(broken()))
    endless = iter(Newest(itertools.count()))
    next(endless)
    endless.close()
    for _ in range(100):
        time.sleep(0.01)
        if not [thread for thread in threading.enumerate() if thread.name == "focalnet-live"]:
            return
    pytest.fail("a thread goes on")


@contextlib.contextmanager
def served(folder):
    """The address of a folder, over HTTP."""
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_film_and_a_stream_over_http(clip, detector, tmp_path, capsys):
    import av

    with av.open(str(tmp_path / "camera.mjpg"), "w", format="mjpeg") as container:  # as a camera sends it
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for _, image in read_frames(clip):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    focalnet.save_pretrained(detector, tmp_path / "model")
    with served(tmp_path) as address:
        assert [place["frame"] for place, _ in Predictor(detector).video(f"{address}/clip.mp4")] == list(range(8))
        source, drawn = f"{address}/camera.mjpg", tmp_path / "drawn"
        code, out, _ = run(capsys, "predict", tmp_path / "model", source, "--json", "--draw", drawn, "--threshold", "0")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert rows[-1]["frame"] == 7  # the last one is never left out
    assert len(list(read_frames(drawn / rows[0]["drawn"]))) == len(rows)


def test_ctrl_c_ends_what_is_live_with_whole_files(detector, tmp_path, monkeypatch, capsys, caplog):
    focalnet.save_pretrained(detector, tmp_path / "model")

    class Camera:
        live, rate = True, Fraction(10)

        def __init__(self, source, stride):
            pass

        def __iter__(self):
            for number in itertools.count():
                time.sleep(0.01)
                yield {"frame": number, "seconds": number / 10}, Image.new("RGB", (64, 48), "red")

    monkeypatch.setattr("focalnet.predict.predictor.Frames", Camera)
    count, predict = itertools.count(), Predictor._predict

    def stopped(*arguments):
        if next(count) == 3:
            raise KeyboardInterrupt
        return predict(*arguments)

    monkeypatch.setattr(Predictor, "_predict", stopped)
    drawn, counts = tmp_path / "drawn", tmp_path / "counts.csv"
    words = ["predict", tmp_path / "model", "webcam:0", "--draw", drawn, "--format", "counts", "--out", counts]
    code, out, err = run(capsys, *words)
    assert code == 0, err
    assert len(out.splitlines()) == 3
    assert len(list(read_frames(drawn / "0000_webcam_0.mp4"))) == 3
    assert len((drawn / "predictions.jsonl").read_text().splitlines()) == 3
    assert len(counts.read_text().splitlines()) == 4
    assert "frames came faster than the network and were left out" in caplog.text


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_leaves_a_whole_film(detector, clip, tmp_path, monkeypatch, capsys, name):
    focalnet.save_pretrained(detector, tmp_path / "model")
    count, predict, number = itertools.count(), Predictor._predict, getattr(signal, name)

    def stopped(*arguments):
        if next(count) == 3:
            os.kill(os.getpid(), number)
            time.sleep(10)  # it is heard long before
        return predict(*arguments)

    def unheard(*_):
        raise AssertionError("a second one")

    monkeypatch.setattr(Predictor, "_predict", stopped)
    before = signal.signal(number, unheard)
    words = ["predict", tmp_path / "model", clip, "--draw", tmp_path / "drawn", "--batch-size", 1]
    try:
        code, out, err = run(capsys, *words)
        assert signal.getsignal(number) is unheard
    finally:
        signal.signal(number, before)
    assert code == 128 + number
    assert "focalnet: stopped." in err
    assert len(out.splitlines()) == len(list(read_frames(tmp_path / "drawn" / "0000_clip.mp4"))) == 3


def test_objects_keep_their_numbers(clip, detector, seeing, tmp_path):
    target = tmp_path / "tracked.mp4"
    answers = list(Predictor(detector).video(clip, target, track=Nearest()))
    tracks = [answer.to_dict()["objects"] for _, answer in answers]
    assert [[found["track"] for found in objects] for objects in tracks] == [[0]] * 8
    assert tracks[4][0]["score"] == 0.3  # weak, but on its track
    assert len(list(read_frames(target))) == 8
    assert answers[0][1].to_supervision().tracker_id.tolist() == [0]
    with pytest.raises(UserError, match="--track follows the objects of detectors; leave it out for classify"):
        next(Predictor(focalnet.create_model("minifocal_32", num_classes=2)).video(clip, track=True))


def test_weak_objects_on_no_track_are_left_out(clip, detector, seeing):
    class Nothing:
        def update(self, detections):
            detections.tracker_id = np.full(len(detections), -1)
            return detections

    answers = [answer for _, answer in Predictor(detector).video(clip, track=Nothing())]
    assert [len(answer.detections) for answer in answers] == [1, 1, 1, 1, 0, 1, 1, 1]
    assert answers[0].to_dict()["objects"][0]["track"] is None


def test_bytetrack(clip, detector, seeing, tmp_path, capsys):
    pytest.importorskip("trackers")
    focalnet.save_pretrained(detector, tmp_path / "model")
    words = ["predict", tmp_path / "model", clip, "--track"]
    code, out, err = run(capsys, *words, "--json")
    assert code == 0, err
    tracks = [[found["track"] for found in json.loads(line)["objects"]] for line in out.splitlines()]
    assert tracks[0] == [None]  # a track is one from the second frame on
    assert tracks[1:] == [[0]] * 7
    _, out, _ = run(capsys, *words, "--format", "counts")
    assert list(csv.reader(out.splitlines()))[-1][-2:] == ["0", "1"]
    _, out, _ = run(capsys, *words, "--format", "csv")
    assert out.splitlines()[0].endswith(",track")
    assert out.splitlines()[-1].endswith(",0")


def test_without_the_package_the_extra_is_named(clip, detector, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(UserError, match=r"Tracking needs .*\[track\]"):
        next(Predictor(detector).video(clip, track=True))


def test_counts(clip, detector, seeing, tmp_path, capsys):
    focalnet.save_pretrained(detector, tmp_path / "model")
    for _, image in read_frames(clip, 8):
        image.save(tmp_path / "a.png")
    out = tmp_path / "counts.csv"
    main(
        [
            "predict",
            str(tmp_path / "model"),
            str(tmp_path / "a.png"),
            str(clip),
            "--format",
            "counts",
            "--out",
            str(out),
        ]
    )
    rows = list(csv.reader(out.read_text().splitlines()))
    assert rows[0] == ["image", "frame", "seconds", "cat", "dog"]
    assert rows[1] == [str(tmp_path / "a.png"), "", "", "0", "1"]
    assert rows[2] == [str(clip), "0", "0.0", "0", "1"]
    assert [row[4] for row in rows[2:]] == ["1", "1", "1", "0", "1", "1", "1", "1"]
    assert len(rows) == 10


def test_a_frame_with_something_beside_it_that_has_no_name_is_read():
    class Frame:
        def to_image(self):
            return Image.new("RGB", (4, 2))

        @property
        def side_data(self):
            raise ValueError("31 is not a valid Type")

    assert video._upright(Frame()).size == (4, 2)
