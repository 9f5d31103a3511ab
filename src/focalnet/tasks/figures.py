"""What the reports of several tasks show alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from focalnet.errors import UserError
from focalnet.explain import explain
from focalnet.tasks.base import Network, Section
from focalnet.visualize.explanation import explanation_panel
from focalnet.visualize.plots import confused_pairs, confusion
from focalnet.weights.spec import ModelSpec


def explained(model: Network, sample: Any, *, grad_cam: bool = False) -> Section:
    """What the network did with the image of a sample: the figures of the paper.

    Args:
        model: the network.
        sample: has the image as `signal`, and its `path`.
        grad_cam: with Grad-CAM of the likeliest class, where captum is installed.
    """
    try:
        explanation = explain(model, sample.signal, grad_cam=grad_cam)
    except UserError:  # a network without classes of its own, or without captum
        explanation = explain(model, sample.signal)
    text = f"Modulators, gates and kernels as in the paper's Figures 6, 5 and 10, on {sample.path}."
    return Section("Where it looks", text, png=explanation_panel(explanation))


def class_names(spec: ModelSpec) -> tuple[str, ...]:
    """The names of a network's classes, or their numbers."""
    return spec.classes or tuple(f"class {index}" for index in range(spec.num_classes))


def class_sections(details: Mapping[str, Any], classes: Sequence[str], noun: str = "image") -> list[Section]:
    """The confusion matrix and the table of the classes, where the metric has them."""
    if "confusion" not in details:
        return []
    matrix = np.array(details["confusion"])
    title = f"accuracy {np.trace(matrix) / max(matrix.sum(), 1):.2%} on {matrix.sum():,} {noun}s"
    text = "Rows are the truth, columns the predictions. Below, the classes that are taken for others most often."
    table = _class_table(matrix, classes, noun)
    return [
        Section("Confusion matrix", text, png=confusion(matrix, classes, title), table=confused_pairs(matrix, classes)),
        Section("Classes", "The worst first.", table=table, folded=len(classes) > 20),
    ]


def _class_table(matrix: np.ndarray, classes: Sequence[str], noun: str) -> list[list[Any]]:
    """Recall, precision and number of samples of every class."""
    hits, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    rows = [
        [name, f"{hit / max(of, 1):.3f}", f"{hit / max(said, 1):.3f}", of]
        for name, hit, of, said in zip(classes, hits.tolist(), truth.tolist(), predicted.tolist(), strict=True)
    ]
    return [["class", "recall", "precision", f"{noun}s"], *sorted(rows, key=lambda row: row[1])]
