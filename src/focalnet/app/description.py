"""What the page knows of a network: classes, preprocessing, how its outputs become an answer, its kernels. JSON."""

from collections.abc import Sequence
from typing import Any

import PIL.Image
import torch

from focalnet import inputs
from focalnet.errors import UserError
from focalnet.exporting.tracing import last_blocks
from focalnet.models.exported import ExportRecord
from focalnet.models.registry import get_family
from focalnet.tasks import task_of
from focalnet.tasks.figures import class_names
from focalnet.visualize.style import class_color
from focalnet.weights.spec import ModelSpec

READERS: dict[tuple[str, tuple[str, ...]], str] = {
    ("classify", ("map_0",)): "classes",
    ("multilabel", ("map_0",)): "labels",
    ("sound", ("map_0",)): "classes",
    ("segment", ("map_0",)): "pixels",
    ("segment", ("logits", "aux_logits")): "pixels",
    ("segment", ("class_logits", "mask_logits")): "regions",
    ("detect", ("pred_logits", "pred_boxes")): "queries",
    ("detect", ("boxes", "scores", "labels")): "objects",
    ("detect", ("boxes", "scores", "labels", "mask_probs")): "objects",
    ("detect", ("class_logits", "mask_logits")): "instances",
    ("panoptic", ("class_logits", "mask_logits")): "panoptic",
}
"""Task and names of the outputs -> what `answers.js` makes of them."""
USUAL_MOST = 100
"""Objects of an image from a network that does not say how many it finds."""


def check_shown(spec: ModelSpec) -> str:
    """The name of the task, if the page can show a network.

    Raises:
        UserError: it takes neither images nor sounds, or has no task that the page knows.
    """
    how = spec.preprocessing
    if not isinstance(how, inputs.Image | inputs.Audio):
        raise UserError(f"the page shows networks for images and sounds, and this one takes {how.kind}.")
    if isinstance(how, inputs.Image):
        if how.channels not in (1, 3):
            raise UserError(f"the page shows grey and RGB images, and this network takes {how.channels} channels.")
        if how.range == "percentile":
            raise UserError("a browser gives 8 bits per color, and this network was trained with --range percentile.")
    name = task_of(spec).name
    if name not in {task for task, _ in READERS}:
        raise UserError(f"the page shows classes, objects and regions, and this network is for --task {name}.")
    return name


def describe(network: Any, record: ExportRecord, title: str, examples: Sequence[dict[str, str]]) -> dict[str, Any]:
    """The content of model.json.

    Args:
        network: that was exported.
        record: of the exported file.
        title: what the page is called.
        examples: `file` and `name` of each image that the page offers.

    Raises:
        UserError: the page cannot show it.
    """
    spec = ModelSpec.from_dict(record.spec, "the exported file")
    task = check_shown(spec)
    kind = READERS.get((task, record.outputs))
    if kind is None:
        raise UserError(f"the page does not know the outputs {', '.join(record.outputs)} for --task {task}.")
    names, how = class_names(spec), spec.preprocessing
    whole = task not in ("classify", "multilabel") or how.long_side is not None
    return {
        "title": title,
        "network": spec.variant,
        "head": get_family(spec.head).title,
        "purpose": get_family(spec.head).purpose,
        "library": record.library,
        "licence": spec.licence,
        "task": task,
        "classes": names,
        "colors": [class_color(index) for index in range(len(names))],
        "view": "whole" if whole else how.view,
        "preprocessing": inputs.to_dict(how),
        "shape": record.shape[1:],
        "sizes": record.sizes,
        "outputs": record.outputs,
        "reader": {"kind": kind, **_reader(network, spec, task)},
        "stages": [{"kernels": kernels, "reach": reach} for kernels, reach in _kernels(network)],
        "pillow": int(PIL.__version__.split(".")[0]),
        "most_pixels": PIL.Image.MAX_IMAGE_PIXELS,
        "examples": list(examples),
    }


def _reader(network: Any, spec: ModelSpec, task: str) -> dict[str, Any]:
    """What is to be known besides the outputs."""
    made: Any = task_of(spec)()
    if task == "sound":
        return {"scale": network.options.scale}
    if task == "multilabel":
        return {"threshold": made.least_score(spec)}
    if task == "panoptic":
        return {
            "threshold": made.threshold,
            "things": [label for label, thing in enumerate(spec.things or ()) if thing],
        }
    if task == "detect":
        try:
            most = network.detections
        except NotImplementedError:
            most = USUAL_MOST
        return {"threshold": made.least_score(spec), "most": most}
    return {}


def _kernels(network: Any) -> list[tuple[Any, Any]]:
    """Of the last block of each stage its kernels, level by level: their mean over the channels, and that of their
    sizes without signs. Those of spectrograms are turned as the page shows them: time from left to right."""
    turned = isinstance(network.spec.preprocessing, inputs.Audio)
    stages = []
    for name in last_blocks(network):
        weights = [layer[0].weight.detach().float() for layer in network.get_submodule(name).focal_layers]
        weights = [weight.transpose(2, 3).flip(2) if turned else weight for weight in weights]
        means = [[_rounded(change(weight).mean((0, 1))) for weight in weights] for change in (lambda w: w, torch.abs)]
        stages.append((means[0], means[1]))
    return stages


def _rounded(values: torch.Tensor) -> list[list[float]]:
    return [[float(f"{value:.5g}") for value in row] for row in values.tolist()]
