"""What the reports of several tasks show alike."""

from typing import Any

from focalnet.errors import MissingExtraError
from focalnet.explain import explain
from focalnet.tasks.base import Network, Section
from focalnet.visualize.explanation import explanation_panel
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
    except MissingExtraError:
        explanation = explain(model, sample.signal)
    text = f"Modulators, gates and kernels as in the paper's Figures 6, 5 and 10, on {sample.path}."
    return Section("Where it looks", text, png=explanation_panel(explanation))


def class_names(spec: ModelSpec) -> tuple[str, ...]:
    """The names of a network's classes, or their numbers."""
    return spec.classes or tuple(f"class {index}" for index in range(spec.num_classes))
