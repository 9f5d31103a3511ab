"""Multi-label classification: metrics against hand counts, the loss, thresholds that travel with the model, a run."""

import csv
import io
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import focalnet
from command_line import run
from focalnet.data.base import Datasets
from focalnet.data.formats.digit_groups import open_digit_groups
from focalnet.errors import UserError
from focalnet.explain import explain
from focalnet.metrics.multilabel import MultilabelMetric
from focalnet.tasks import task_of
from focalnet.tasks.classify import Classify
from focalnet.tasks.multilabel import LabelPrediction, Multilabel
from focalnet.weights.spec import ModelSpec

CLASSES = ("ant", "bee", "cow")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Multilabel(model="minifocal_32").build_model(Datasets(CLASSES, [], [], ""))


def measured(scores, truth, threshold=None):
    metric = MultilabelMetric(len(truth[0]), threshold)
    for row, true in zip(scores, truth, strict=True):
        metric.update(torch.tensor([row]), torch.tensor([true]) > 0)
    return metric.compute(), metric.details()


def test_metrics_equal_a_hand_count():
    scores = [[0.9, 0.2, 0.1], [0.8, 0.6, 0.1], [0.3, 0.7, 0.1], [0.6, 0.1, 0.1]]
    truth = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]
    metrics, details = measured(scores, truth, 0.5)
    assert metrics["map"] == 1.0  # of the first two; nothing is of the third
    assert metrics["f1_micro"] == pytest.approx(2 * 4 / (2 * 4 + 1))
    assert metrics["f1_macro"] == pytest.approx((0.8 + 1) / 2)
    assert (metrics["exact_match"], metrics["threshold"]) == (0.75, 0.5)
    first, second, third = details["classes"]
    assert (first["ap"], first["precision"], first["recall"], first["images"]) == (1, pytest.approx(2 / 3), 1, 2)
    assert (second["f1"], third["ap"], third["images"]) == (1, None, 0)
    scores[3][0] = 0.395
    best, details = measured(scores, truth)  # 0.40 to 0.60 are all right, and the one in the middle is taken
    assert (best["threshold"], best["f1_micro"], best["exact_match"]) == (0.5, 1, 1)
    assert [place + 1 for place, value in enumerate(details["curves"]["F1"]) if value == 1] == [*range(40, 61)]


def test_metrics_equal_scikit_learn():
    from sklearn.metrics import average_precision_score, f1_score

    rng = np.random.default_rng(0)
    truth = rng.random((60, 7)) < 0.3
    scores = np.clip(0.4 * truth + rng.random((60, 7)) * 0.6, 0, 1).astype(np.float32).round(2)
    metrics, details = measured(scores.tolist(), truth.tolist())
    said = scores >= metrics["threshold"]
    assert metrics["map"] == pytest.approx(average_precision_score(truth, scores, average="macro"))
    assert metrics["f1_micro"] == pytest.approx(f1_score(truth, said, average="micro"))
    assert metrics["f1_macro"] == pytest.approx(f1_score(truth, said, average="macro"))
    micro = details["curves"]["F1"]
    for place in (9, 49, 79):
        wanted = f1_score(truth, scores >= (place + 1) / 100, average="micro")
        assert micro[place] == pytest.approx(wanted, abs=0.02)
    assert max(micro) == pytest.approx(metrics["f1_micro"])


def test_no_label_at_all():
    with pytest.raises(UserError, match="No image has a label"):
        measured([[0.5, 0.5]], [[0, 0]])


def test_loss_is_binary_cross_entropy(model):
    task = Multilabel(model="minifocal_32", label_smoothing=0.2)
    images = torch.randn(2, 3, 32, 32)
    batch = task.collate(model.spec, [(images[0], (0, 2)), (images[1], ())], train=True)
    torch.testing.assert_close(batch["targets"], torch.tensor([[0.9, 0.1, 0.9], [0.1, 0.1, 0.1]]))
    model.eval()
    with torch.no_grad():
        logits = model(images)
        for network in (task.loss(model, batch), model.loss(images, batch["targets"])):
            wanted = F.binary_cross_entropy_with_logits(logits, batch["targets"])
            torch.testing.assert_close(network["loss"], wanted)
    evaluated = task.collate(model.spec, [(images[0], (0, 2)), (images[1], ())], train=False)
    assert evaluated["labels"].tolist() == [[1, 0, 1], [0, 0, 0]]


def test_mixing_mixes_the_labels(model):
    task = Multilabel(model="minifocal_32", label_smoothing=0.0, mixing=(0.8, 0.0))
    torch.manual_seed(3)
    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    batch = task.collate(model.spec, [(images[0], (0,)), (images[1], (1, 2))], train=True)
    share = batch["images"][1, 0, 0, 0]
    assert 0 < share < 1
    torch.testing.assert_close(batch["targets"][1], torch.stack([1 - share, share, share]))


def test_balanced_weights_are_odds(model):
    class Rows:
        labels = ((0,), (0, 1), (0,), ())

    task = Multilabel(model="minifocal_32", class_weights="balanced", label_smoothing=0.0)
    model = task.build_model(Datasets(CLASSES, Rows(), [], ""))
    torch.testing.assert_close(model.class_weights, torch.tensor([1 / 3, 3, 4]))
    images, targets = torch.randn(1, 3, 32, 32), torch.tensor([[1.0, 0.0, 1.0]])
    model.eval()
    with torch.no_grad():
        wanted = F.binary_cross_entropy_with_logits(model(images), targets, pos_weight=torch.tensor([1 / 3, 3, 4]))
        torch.testing.assert_close(task.loss(model, {"images": images, "targets": targets})["loss"], wanted)


def test_the_spec_remembers_what_scores_mean(model, tmp_path):
    task = Multilabel(model="minifocal_32")
    model.spec = task.tuned(model.spec, {"threshold": 0.31}, {})
    focalnet.save_pretrained(model.eval(), tmp_path / "saved")
    again = focalnet.create_model(weights=tmp_path / "saved")
    assert (task_of(again.spec), again.spec.threshold, again.multilabel) == (Multilabel, 0.31, True)
    assert "multi-label" in (tmp_path / "saved" / "README.md").read_text()
    picture = Image.new("RGB", (32, 32), "red")
    with torch.no_grad():
        scores = again(again.spec.preprocessing(picture)[None])[0].sigmoid()
    prediction = focalnet.Predictor(again)(picture)
    wanted = {name: pytest.approx(float(score)) for name, score in zip(CLASSES, scores, strict=True)}
    assert dict(prediction.top) == wanted
    assert set(prediction.names) == {name for name, score in zip(CLASSES, scores, strict=True) if score >= 0.31}
    assert focalnet.Predictor(again, threshold=0.0)(picture).names == tuple(name for name, _ in prediction.top)
    assert focalnet.Predictor(again, threshold=1.0)(picture).names == ()
    assert "threshold" in json.loads((tmp_path / "saved" / "config.json").read_text())


def test_other_classes_or_another_task_forget_the_threshold(model, tmp_path):
    model.spec = model.spec.replace(threshold=0.31)
    focalnet.save_pretrained(model, tmp_path / "saved")
    other = focalnet.create_model(weights=tmp_path / "saved", classes=["x", "y"])
    assert (other.spec.task, other.spec.threshold) == ("multilabel", None)
    plain = Classify(model="minifocal_32", weights=str(tmp_path / "saved")).build_model(Datasets(CLASSES, [], [], ""))
    assert (plain.spec.task, plain.spec.threshold, plain.multilabel) == (None, None, False)


def test_a_damaged_threshold_is_refused(model):
    fields = json.loads(model.spec.to_json())
    for value in (1.5, "x", -0.1):
        with pytest.raises(UserError, match="threshold"):
            ModelSpec.from_dict(fields | {"threshold": value})


def test_predictions_in_words():
    prediction = LabelPrediction.from_scores(torch.tensor([0.2, 0.9, 0.5]), CLASSES, 0.5)
    assert prediction.labels == (("bee", pytest.approx(0.9)), ("cow", 0.5))
    assert prediction.summary() == "bee 90.0%, cow 50.0%"
    assert prediction.to_dict()["labels"][1] == {"label": "cow", "score": 0.5}
    nothing = LabelPrediction.from_scores(torch.tensor([0.2, 0.1, 0.0]), CLASSES, 0.5)
    assert nothing.summary() == "no label (likeliest: ant 20.0%)"
    assert nothing.draw(Image.new("RGB", (64, 48))).width >= 64


def test_explanations_say_all_labels_and_take_a_name(model):
    model.spec = model.spec.replace(threshold=0.0)
    picture = Image.new("RGB", (32, 32), "blue")
    found = explain(model.eval(), picture, target="bee", grad_cam=True)
    assert found.target == 1
    assert all(name in found.caption for name in CLASSES)
    assert found.caption.endswith("Grad-CAM for: bee")
    with pytest.raises(UserError, match="There is no class 'bea'; did you mean 'bee'"):
        explain(model, picture, target="bea", grad_cam=True)


def test_groups_of_digits_depend_on_nothing_but_their_number():
    train, val = open_digit_groups()
    assert (len(train), len(val), train.classes) == (3000, 500, tuple("0123456789"))
    assert all(1 <= len(labels) <= 4 for labels in train.labels)
    assert train.entries == open_digit_groups()[0].entries
    for split, index in ((train, 5), (val, 7)):
        picture = np.asarray(split.reader.read(split.entries[index]))
        quarters = [picture[top : top + 8, left : left + 8].any() for top in (0, 8) for left in (0, 8)]
        assert [number for number in range(4) if quarters[number]] == list(split.entries[index][1])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Images with one to three bright corners, each a class, and a CSV."""
    folder = tmp_path_factory.mktemp("corners")
    rows = ["file,labels"]
    for number in range(24):
        pixels = np.zeros((32, 32, 3), np.uint8)
        own = [corner for corner in range(3) if (number % 7 + 1) >> corner & 1]
        for corner in own:
            top, left = 16 * (corner // 2), 16 * (corner % 2)
            pixels[top : top + 16, left : left + 16, corner] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{' '.join(CLASSES[corner] for corner in own)}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_a_run_from_a_table_by_the_command_line(table, tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--model", "minifocal_32", "--weights", "None", "--image-size", "32", "--workers", "0"]
    rates = ["--batch-size", "4", "--lr", "3e-3", "--warmup-epochs", "1", "--drop-path", "0", "--augment", "none"]
    code, printed, _ = run(
        capsys, "train", "--task", "multilabel", "--data", table, "--out", out, "--epochs", 2, *options, *rates
    )
    assert code == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {"map", "f1_micro", "f1_macro", "exact_match", "threshold", "val_loss"} <= set(rows[-1])
    best = max(rows, key=lambda row: row["map"])
    kept = json.loads((out / "best" / "config.json").read_text())
    assert (kept["task"], kept["threshold"]) == ("multilabel", best["threshold"])
    assert {"average_precision.png", "threshold.png"} <= {path.name for path in (out / "plots").iterdir()}
    before = json.loads((out / "evaluation.json").read_text())["metrics"]
    assert before["map"] == best["map"]
    assert run(capsys, "evaluate", out, "--workers", 0, "--json", tmp_path / "m.json")[0] == 0
    after = json.loads((tmp_path / "m.json").read_text())
    assert {name: after[name] for name in ("map", "threshold", "exact_match")} == {
        name: pytest.approx(before[name]) for name in ("map", "threshold", "exact_match")
    }
    code, printed, _ = run(capsys, "predict", out, table / "0.png", "--json", "--threshold", "0")
    (line,) = map(json.loads, printed.splitlines())
    assert [set(row) for row in line["labels"]] == [{"label", "score"}] * 3
    code, printed, _ = run(capsys, "predict", out, table / "0.png", "--format", "csv", "--threshold", "0")
    lines = list(csv.DictReader(io.StringIO(printed)))
    assert [row["label"] for row in lines] == [row["label"] for row in line["labels"]]
    code, printed, _ = run(capsys, "explain", out, "--grad-cam", "--target", "bee", "--out", tmp_path / "e.png")
    assert (code, (tmp_path / "e.png").exists()) == (0, True)
    code, _, told = run(capsys, "resume", out, "--epochs", 2)
    assert (code, "is finished" in told) == (2, True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_digits_of_a_group_are_learned_by_the_command_line_alone(tmp_path, capsys):
    code, _, _ = run(capsys, "train", "--task", "multilabel", "--out", tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "evaluation.json").read_text())["metrics"]
    assert (code, metrics["map"] > 0.98, metrics["exact_match"] > 0.8) == (0, True, True)


def test_a_classification_of_several_labels_names_the_task(table, tmp_path, capsys):
    code, _, told = run(capsys, "train", "--model", "minifocal_32", "--data", table, "--out", tmp_path / "run")
    assert (code, "--task multilabel" in told, (tmp_path / "run").exists()) == (2, True, False)
    code, _, told = run(
        capsys,
        "train",
        "--task",
        "multilabel",
        "--model",
        "minifocal_32",
        "--data",
        table.parent,
        "--out",
        tmp_path / "r",
    )
    assert (code, "has no CSV file" in told) == (2, True)
