"""The classification task: figures against hand counts, labels by name, predictions."""

import math

import pytest
import torch
from PIL import Image
from torch import nn

from focalnet.data import Sample
from focalnet.errors import UserError
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.tasks import get_task, list_tasks, name_of_task
from focalnet.tasks.base import Datasets, Task
from focalnet.tasks.classify import ClassificationMetric, Classify, ClassPrediction
from focalnet.variants import get_variant
from focalnet.weights.spec import ModelSpec


def spec_of(*classes: str) -> ModelSpec:
    return ModelSpec(
        variant="minifocal_32", architecture=get_variant("minifocal_32"), num_classes=len(classes), classes=classes
    )


class Answers(nn.Module):
    """Gives the images back as logits."""

    def forward(self, images):
        return images

    multilabel = False
    loss = FocalNetClassifier.loss


def test_tasks_are_found_by_file_name():
    assert "classify" in list_tasks()
    assert "base" not in list_tasks()
    assert get_task("classify") is Classify
    assert name_of_task("classifier") == "classify"
    assert all(issubclass(get_task(name), Task) for name in list_tasks())


def test_a_head_that_no_task_uses():
    with pytest.raises(UserError, match="No task uses a model with the head 'backbone'"):
        name_of_task("backbone")


def test_metric_equals_a_hand_count_and_ignores_padding():
    metric = ClassificationMetric(spec_of(*"abcdef"))
    logits = torch.zeros(5, 6)
    logits[0, 0] = logits[1, 1] = logits[2, 5] = logits[3, 3] = logits[4, 4] = 2.0
    logits[2, 0] = -1.0  # the truth of sample 2 comes last
    batch = {"images": logits, "labels": torch.tensor([0, 1, 0, 2, 0]), "index": torch.tensor([7, 8, 9, 10, -1])}
    metric.update(Answers(), batch)
    metrics = metric.compute()
    assert metrics["top1"] == pytest.approx(2 / 4)
    assert metrics["top5"] == pytest.approx(3 / 4)
    right = math.log(5 + math.e**2) - 2
    wrong = [math.log(4 + math.e**-1 + math.e**2) + 1, math.log(5 + math.e**2)]
    assert metrics["val_loss"] == pytest.approx((2 * right + sum(wrong)) / 4, rel=1e-5)
    details = metric.details()
    assert [(row["index"], row["label"], row["predicted"]) for row in details["worst"]] == [(9, 0, 5), (10, 2, 3)]
    assert torch.tensor(details["confusion"]).sum() == 4
    assert details["confusion"][0][5] == 1


def test_metric_of_five_classes_has_no_top5():
    metric = ClassificationMetric(spec_of(*"abcde"))
    batch = {"images": torch.eye(5)[:2], "labels": torch.tensor([0, 0]), "index": torch.tensor([0, 1])}
    metric.update(Answers(), batch)
    assert set(metric.compute()) == {"top1", "val_loss"}


def test_loss_is_the_soft_cross_entropy():
    logits, targets = torch.randn(3, 4), torch.softmax(torch.randn(3, 4), -1)
    loss = Classify().loss(Answers(), {"images": logits, "targets": targets})["loss"]
    torch.testing.assert_close(loss, -(targets * logits.log_softmax(-1)).sum(-1).mean())


def test_training_batches_are_smoothed_and_evaluation_batches_are_labels():
    task, spec = Classify(label_smoothing=0.2), spec_of("a", "b")
    examples = [(torch.rand(3, 8, 8), 0), (torch.rand(3, 8, 8), 1)]
    batch = task.collate(spec, examples, train=True)
    torch.testing.assert_close(batch["targets"], torch.tensor([[0.9, 0.1], [0.1, 0.9]]))
    assert task.collate(spec, examples, train=False)["labels"].tolist() == [0, 1]


def test_num_classes_that_disagrees_with_the_data():
    with pytest.raises(UserError, match="--num-classes is 9, but digits has 10 classes"):
        Classify(num_classes=9).datasets(seed=0)


def test_image_size_reaches_the_spec():
    model = Classify(model="minifocal_32", image_size=48).build_model(Datasets(("a", "b"), [], [], ""))
    assert model.spec.preprocessing.input_size == 48
    example, label = Classify(augment="digits").example(
        model.spec, Sample(Image.new("RGB", (9, 7)), 1, "x.png"), train=True
    )
    assert (example.shape, label) == ((3, 48, 48), 1)


def test_predictions_are_sorted_and_named():
    prediction = ClassPrediction.from_probabilities(torch.tensor([0.1, 0.7, 0.2]), ("a", "b", "c"))
    assert (prediction.label, [name for name, _ in prediction.top]) == ("b", ["b", "c", "a"])
    assert prediction.to_dict()["score"] == pytest.approx(0.7)
    assert prediction.summary() == "b 70.0%, c 20.0%, a 10.0%"
    assert prediction.draw(Image.new("RGB", (64, 48))).width >= 64
