"""Finding images, and predictions from run folders, model folders and models."""

import copy
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import focalnet
from focalnet.cli import main
from focalnet.engine.evaluate import evaluate
from focalnet.errors import UserError
from focalnet.predict import Predictor, find_files, find_images, held_out
from kept_runs import assert_near


@pytest.fixture
def pictures(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 36), "red").save(tmp_path / name, format="png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return focalnet.create_model("minifocal_32", classes=["cat", "dog", "emu"])


def test_folders_are_searched_in_order_and_all_the_way_down(pictures):
    assert find_images([str(pictures)]) == [str(pictures / name) for name in ("a.JPG", "b.png", "deep/c.webp")]


def test_globs_files_urls_and_lists(pictures, monkeypatch):
    assert find_images([f"{pictures}/*.png"]) == [str(pictures / "b.png")]
    assert find_images([str(pictures / "b.png"), "https://host/x"]) == [str(pictures / "b.png"), "https://host/x"]
    monkeypatch.setattr("sys.stdin", io.StringIO("one.png\n\ntwo.png\n"))
    assert find_images(["-"]) == ["one.png", "two.png"]


def test_nothing_found(tmp_path):
    with pytest.raises(UserError, match="holds no images"):
        find_images([str(tmp_path)])
    with pytest.raises(UserError, match=r"gone\.png is no file, folder, URL or pattern"):
        find_images([str(tmp_path / "gone.png")])


def test_what_is_no_file_is_said_and_never_waited_for(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name, what in (("nowhere", "a link that leads nowhere"), ("circle", "a link that"), ("pipe", "a pipe")):
        with pytest.raises(UserError, match=rf"{name}\.png is {what}"):
            find_images([f"{tmp_path}/{name}.png"])
    with pytest.raises(UserError, match="/dev/null is a device"):
        find_images(["/dev/null"])
    for source in (str(tmp_path), f"{tmp_path}/*.png"):
        unreadable = {}
        assert find_files([source], "image", unreadable) == [str(tmp_path / "a.png")]
        assert [Path(name).stem for name in unreadable] == ["circle", "nowhere", "pipe"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{tmp_path}/pipe.png\n"))
    with pytest.raises(UserError, match="is a pipe"):
        find_images(["-"])
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n"))
    with pytest.raises(UserError, match="Standard input names no file"):
        find_images(["-"])


def test_folders_that_lead_back_to_themselves_and_hidden_files(tmp_path):
    (tmp_path / "inside").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "inside" / "a.png")
    (tmp_path / "inside" / "back").symlink_to(tmp_path)
    for name in ("._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    expected = [str(tmp_path / "inside" / "a.png")]
    assert find_images([str(tmp_path)]) == find_images([f"{tmp_path}/**/*.png"]) == expected


def test_one_picture_in_any_form_gives_the_same(model, pictures):
    predictor = Predictor(model)
    path = pictures / "b.png"
    with Image.open(path) as opened:
        forms = [path, str(path), path.read_bytes(), opened.copy()]
    assert len({predictor(form).score for form in forms}) == 1
    assert predictor(path).label in ("cat", "dog", "emu")
    assert sum(probability for _, probability in predictor(path).top) == pytest.approx(1)


def test_batches_do_not_change_predictions(model, pictures):
    predictor = Predictor(model)
    sources = find_images([str(pictures)])
    singly = [predictor(source).top for source in sources]
    together = [prediction.top for _, prediction in predictor.stream(sources, batch_size=2)]
    for one, other in zip(singly, together, strict=True):
        assert [name for name, _ in one] == [name for name, _ in other]
        assert [p for _, p in one] == pytest.approx([p for _, p in other], rel=1e-5)


def test_a_saved_model_predicts_the_same(model, pictures, tmp_path):
    focalnet.save_pretrained(model, tmp_path / "saved")
    path = pictures / "b.png"
    assert Predictor(tmp_path / "saved")(path).top == Predictor(model)(path).top


def test_a_bad_picture_is_named(model, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=r"broken\.jpg"):
        Predictor(model)(tmp_path / "broken.jpg")


def test_pictures_before_a_bad_one_are_answered(model, pictures, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    answers = Predictor(model).stream([*[pictures / "b.png"] * 3, tmp_path / "broken.jpg", pictures / "b.png"], 16)
    assert [next(answers)[1].label for _ in range(3)] == [Predictor(model)(pictures / "b.png").label] * 3
    with pytest.raises(UserError, match=r"broken\.jpg"):
        next(answers)
    with pytest.raises(UserError, match="--batch-size is 0"):
        next(Predictor(model).stream([pictures / "b.png"], 0))


def test_a_head_that_would_be_random_is_refused(model, tmp_path):
    focalnet.save_pretrained(model, tmp_path / "classifier")
    with pytest.raises(UserError, match="holds a classifier, so the head of upernet_minifocal_128 would be random"):
        Predictor("upernet_minifocal_128", weights=tmp_path / "classifier")


def test_a_name_without_weights_is_refused():
    with pytest.raises(UserError, match="has no weights; say where they are"):
        Predictor("focalnet_tiny_srf")


def test_command_line_prints_json_and_draws(model, pictures, tmp_path, capsys):
    focalnet.save_pretrained(model, tmp_path / "saved")
    main(["predict", str(tmp_path / "saved"), str(pictures / "b.png"), "--json", "--draw", str(tmp_path / "drawn")])
    row = json.loads(capsys.readouterr().out)
    assert row["source"] == str(pictures / "b.png")
    assert row["label"] == row["top"][0]["label"]
    with Image.open(tmp_path / "drawn" / row["drawn"]) as drawn:
        assert drawn.height > 36
    assert json.loads((tmp_path / "drawn" / "predictions.jsonl").read_text()) == row


@pytest.mark.parametrize(("options", "code"), [([], 2), (["--on-bad-image", "skip"], 0)])
def test_one_bad_file_of_many_costs_no_other_its_answer(model, pictures, tmp_path, capsys, options, code):
    focalnet.save_pretrained(model, tmp_path / "saved")
    (pictures / "0.jpg").write_bytes(b"\xff\xd8\xff")
    (pictures / "empty.mp4").write_bytes(b"")
    (pictures / "link.png").symlink_to(pictures / "gone")
    sources = [pictures / name for name in ("0.jpg", "a.JPG", "empty.mp4", "b.png", "link.png", "gone.png")]
    end = None
    try:
        main(["predict", str(tmp_path / "saved"), *map(str, sources), "--json", "--batch-size", "2", *options])
    except SystemExit as caught:
        end = caught.code
    captured = capsys.readouterr()
    assert (end or 0) == code
    assert [Path(json.loads(line)["source"]).name for line in captured.out.splitlines()] == ["a.JPG", "b.png"]
    for name in ("0.jpg", "empty.mp4", "link.png", "gone.png"):
        assert captured.err.count(name) == 1
    assert ("4 of 6 could not be read" in captured.err) == (code == 2)
    assert "Traceback" not in captured.err


def test_names_that_the_terminal_cannot_show_are_escaped(model, tmp_path, monkeypatch):
    focalnet.save_pretrained(model, tmp_path / "saved")
    names = ["ä\N{SNOWMAN}.png", os.fsdecode(b"\xff.png"), "broken\N{SNOWMAN}.png"]
    for name in names[:2]:
        Image.new("RGB", (4, 4)).save(tmp_path / name, format="png")
    (tmp_path / names[2]).write_text("no image")
    listed = "\n".join(str(tmp_path / name) for name in names)
    streams = {
        "stdin": io.TextIOWrapper(io.BytesIO(os.fsencode(listed)), "utf-8"),
        "stdout": io.TextIOWrapper(io.BytesIO(), "latin-1"), "stderr": io.TextIOWrapper(io.BytesIO(), "ascii"),
    }  # fmt: skip
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    main(["predict", str(tmp_path / "saved"), "-", "--on-bad-image", "skip"])
    said = {name: stream.seek(0) or stream.read() for name, stream in streams.items()}
    assert [Path(line.split("  ")[0]).name for line in said["stdout"].splitlines()] == [
        "ä\\u2603.png", "\\udcff.png",
    ]  # fmt: skip
    assert "broken\\u2603.png" in said["stderr"]


def test_no_pictures_and_no_run(model, tmp_path):
    focalnet.save_pretrained(model, tmp_path / "saved")
    with pytest.raises(UserError, match="is no run folder with images of its own"):
        held_out(str(tmp_path / "saved"))


# detectors and segmenters


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    small = {"embed_dim": 8, "depths": (1, 1, 1, 1), "fpn_channels": 8, "representation_size": 8}
    return focalnet.create_model("mask_rcnn_minifocal_128", classes=["cat", "dog"], **small)


@pytest.mark.parametrize("kind", ["model", "segmenter"])
def test_half_precision(kind, request):
    network = copy.deepcopy(request.getfixturevalue(kind)).to(torch.bfloat16)
    assert Predictor(network)(Image.new("RGB", (40, 36), "red")).to_dict()


def test_a_rotated_picture_is_drawn_upright(segmenter, tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (120, 80), "red").save(tmp_path / "rotated.jpg", exif=exif)
    answer = Predictor(segmenter)(tmp_path / "rotated.jpg")
    assert answer.labels.shape == (120, 80)
    assert answer.draw(Image.open(tmp_path / "rotated.jpg")).height > 480


@pytest.mark.parametrize("kind", ["detector", "segmenter"])
def test_images_of_one_size_share_a_forward_pass(kind, request, monkeypatch):
    from focalnet.tasks import dense

    network = request.getfixturevalue(kind)
    predictor = Predictor(network, **({"threshold": 0.0} if kind == "detector" else {}))
    noise = np.random.default_rng(0)
    sizes = [(40, 36), (36, 40), (40, 36), (80, 72), (36, 40)]  # (80, 72) is resized to what (40, 36) is
    images = [Image.fromarray(noise.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]
    singly = [predictor(image).to_dict() for image in images]
    shapes = []
    handle = network.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    together = [answer.to_dict() for _, answer in predictor.stream(images, 16)]
    assert [shape[0] for shape in shapes] == [3, 2]
    monkeypatch.setattr(dense, "PIXELS", 2 * shapes[0][2] * shapes[0][3])
    list(predictor.stream(images, 16))
    handle.remove()
    assert [shape[0] for shape in shapes[2:]] == [2, 1, 2]
    for one, other in zip(singly, together, strict=True):
        assert_near(other, one, rel=1e-3, abs=1e-3)


def test_more_classes_than_a_byte_has_values():
    network = focalnet.create_model("upernet_minifocal_128", num_classes=300, embed_dim=8).eval()
    with torch.no_grad():
        network.net.decode_head.classifier.bias[280] = 100
    answer = Predictor(network)(Image.new("RGB", (40, 36), "red"))
    assert set(answer.pixels) == {280}
    assert np.asarray(answer.maps()["labels"]).max() == 280


def test_numbers_out_of_range_are_refused(segmenter, detector):
    picture = Image.new("RGB", (40, 36), "red")
    for level in (-1, 1.7, float("nan")):
        with pytest.raises(UserError, match="--threshold is"):
            Predictor(detector, threshold=level)(picture)
    for options, message in (
        ({"batch_size": 0}, "--batch-size is 0"), ({"workers": -1}, "--workers is -1"),
        ({"results": "folder"}, "segment has no format"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            evaluate(segmenter, **options)


def test_a_threshold_is_for_detectors(model, detector):
    with pytest.raises(UserError, match="classify has no threshold"):
        Predictor(model, threshold=0.3)
    picture = Image.new("RGB", (40, 36), "red")
    found = [len(Predictor(detector, threshold=level)(picture).detections) for level in (0.0, 1.0)]
    assert found[0] > found[1] == 0


@pytest.fixture(scope="module")
def segmenter():
    """Random, but with statistics of noise in its norms, so that places differ in class."""
    torch.manual_seed(0)
    model = focalnet.create_model("upernet_minifocal_128", classes=["background", *"0123456789"], embed_dim=8)
    model.train()
    for _ in range(20):
        model(torch.randn(4, 3, 64, 64))
    return model.eval()


def test_windows_are_for_semantic_segmentation(model, segmenter):
    with pytest.raises(UserError, match="classify has no window"):
        Predictor(model, window=24)
    with pytest.raises(UserError, match="segment has no threshold"):
        Predictor(segmenter, threshold=0.3)
    with pytest.raises(UserError, match="--window is 0"):
        Predictor(segmenter, window=0)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8))
    side = segmenter.spec.preprocessing.input_size
    whole, wide, narrow = (Predictor(segmenter, window=window).task for window in (None, side, 80))
    views = [task.scores(segmenter, *_batch(task, segmenter, noise), [(128, 128)])[0] for task in (whole, wide, narrow)]
    assert torch.equal(views[0], views[1])
    assert views[2].shape == views[0].shape
    assert not torch.allclose(views[0], views[2], atol=1e-4)


def _batch(task, segmenter, image):
    from focalnet.tasks.dense import bare_sample

    example = task.example(segmenter.spec, bare_sample(image), train=False)
    return example["image"][None], torch.tensor([example["target"]["size"]])


@pytest.mark.slow
def test_the_command_measures_in_windows(segmenter, tmp_path):
    from scene_files import write_semantic

    focalnet.save_pretrained(segmenter, tmp_path / "model")
    write_semantic(tmp_path / "data")
    metrics = []
    for options in ([], ["--window", "64"], ["--window", "96", "--tta"]):
        command = ["evaluate", str(tmp_path / "model"), "--data", str(tmp_path / "data"), "--workers", "0"]
        main([*command, "--json", str(tmp_path / "figures.json"), *options])
        metrics.append(json.loads((tmp_path / "figures.json").read_text())["pixel_accuracy"])
    assert len(set(metrics)) == 3


def test_the_map_beside_a_drawing_has_the_ids_of_its_row(segmenter, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    pictures = [(name, Image.fromarray(noise)) for name in ("a/x.png", "b/x.png")]  # one name in two folders
    rows = [row for row, _ in Predictor(segmenter).predictions(pictures, tmp_path / "drawn")]
    assert [(row["source"], row["drawn"], row["labels"]) for row in rows] == [
        ("a/x.png", "0000_x.png", "0000_x_labels.png"),
        ("b/x.png", "0001_x.png", "0001_x_labels.png"),
    ]
    counts = np.bincount(np.asarray(Image.open(tmp_path / "drawn" / rows[1]["labels"])).ravel(), minlength=11)
    found = {entry["id"]: entry["pixels"] for entry in rows[1]["classes"]}
    assert found == {label: count for label, count in enumerate(counts) if count}
    assert {entry["label"] for entry in rows[1]["classes"]} == {segmenter.spec.classes[label] for label in found}


def test_a_video_frame_by_frame(detector, tmp_path):
    from fractions import Fraction

    from focalnet.inputs.video import VideoWriter, read_frames

    with VideoWriter(tmp_path / "clip.mp4", Fraction(5)) as writer:
        for shade in (0, 100, 200):
            writer.write(Image.new("RGB", (64, 48), (shade,) * 3))
    answers = list(Predictor(detector, threshold=0).video(tmp_path / "clip.mp4", tmp_path / "drawn.mp4", batch_size=2))
    assert [place["frame"] for place, _ in answers] == [0, 1, 2]
    assert all(answer.to_dict()["objects"] for _, answer in answers)
    assert len(list(read_frames(tmp_path / "drawn.mp4"))) == 3


def test_a_video_without_a_frame_is_said(detector, tmp_path):
    import av

    with av.open(str(tmp_path / "empty.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    unreadable = {}
    sources = [(str(tmp_path / "empty.mp4"),) * 2]
    assert list(Predictor(detector).predictions(sources, tmp_path / "drawn", unreadable=unreadable)) == []
    assert "empty.mp4" in str(*unreadable.values())
    assert not list(tmp_path.glob("drawn/*.mp4"))


def test_the_command_predicts_pictures_and_videos(detector, tmp_path, capsys):
    from fractions import Fraction

    from focalnet.inputs.video import VideoWriter

    focalnet.save_pretrained(detector, tmp_path / "model")
    assert "object-detection" in (tmp_path / "model" / "README.md").read_text()
    Image.new("RGB", (40, 36), "red").save(tmp_path / "a.png")
    with VideoWriter(tmp_path / "b.mp4", Fraction(5)) as writer:
        writer.write(Image.new("RGB", (64, 48), "red"))
    paths = [str(tmp_path / name) for name in ("a.png", "b.mp4")]
    main(["predict", str(tmp_path / "model"), *paths, "--json", "--threshold", "0", "--draw", str(tmp_path / "out")])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["source"], row.get("frame")) for row in rows] == [(paths[0], None), (paths[1], 0)]
    assert [row["drawn"] for row in rows] == ["0000_a.png", "0001_b.mp4"]
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["0000_a.png", "0001_b.mp4", "predictions.jsonl"]


def test_the_command_writes_formats_of_the_field(detector, tmp_path, capsys):
    detector = copy.deepcopy(detector)
    detector.spec = detector.spec.replace(category_ids=(3, 7))
    folder, image = tmp_path / "model", tmp_path / "a.png"
    focalnet.save_pretrained(detector, folder)
    Image.effect_noise((70, 50), 100).save(image)
    words = ["predict", str(folder), str(image), "--threshold", "0", "--detections", "7"]
    main([*words, "--format", "coco"])
    content = json.loads(capsys.readouterr().out)
    assert len(content["annotations"]) == 7
    assert {note["category_id"] for note in content["annotations"]} <= set(detector.spec.category_ids)
    assert content["images"] == [{"id": 1, "file_name": str(image), "width": 70, "height": 50}]
    main([*words, "--format", "csv"])
    assert len(capsys.readouterr().out.splitlines()) == 8
    main([*words, "--format", "yolo", "--out", str(tmp_path / "texts")])
    assert "a.png  " in capsys.readouterr().out
    assert len((tmp_path / "texts" / "a.txt").read_text().splitlines()) == 7
    for more, sentence in ((["--out", "x"], "--out is where --format"), (["--format", "yolo"], "--out FOLDER")):
        with pytest.raises(SystemExit):
            main([*words, *more])
        assert sentence in capsys.readouterr().err
