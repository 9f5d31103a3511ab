"""The model card: the README that stands beside published weights."""

import json

from focalnet import inputs
from focalnet.weights.spec import ModelSpec

PAPER = "https://arxiv.org/abs/2203.11926"


def model_card(spec: ModelSpec, address: str, *, title: str, purpose: str, pipeline: str, outputs: str) -> str:
    """Markdown with the hub's header, made of nothing but the spec and the words of the model's family.

    Args:
        spec: of the model.
        address: the hub id or folder that `create_model` will find it under.
        title: what people call what stands on the backbone, "" where nothing does.
        purpose: what the model is for, a few words.
        pipeline: the hub's word for that.
        outputs: what a call of the model gives, one word.
    """
    backbone = spec.head == "backbone"
    header = {
        "license": spec.licence,
        "library_name": "focalnet",
        "pipeline_tag": pipeline,
        "tags": ["focalnet", "focal-modulation"],
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in header.items() if value is not None]
    create = "create_backbone" if backbone else "create_model"
    return "\n".join(
        [
            "---", *lines, "---", "",
            f"# {f'{title} on ' if title else ''}{spec.variant}", "",
            f"A FocalNet ([Focal Modulation Networks]({PAPER})): {_purpose(spec, purpose)}.", "",
            "```python",
            "import focalnet",
            f"model = focalnet.{create}(weights={json.dumps(address)})",
            f"{outputs} = model(images)  # (B, {spec.architecture.in_channels}, H, W), normalised",
            "```", "",
            "## Images", "",
            _pictures(spec.preprocessing), "",
            *([] if backbone else ["## Classes", "", _classes(spec), ""]),
            "## Where it comes from", "",
            f"- Weights: {spec.source or 'trained from random weights'}.",
            f"- Licence of the weights: {spec.licence or 'not recorded; ask whoever trained them'}.",
            f"- Architecture: `{spec.architecture.to_json()}`", "",
        ]
    )  # fmt: skip


def _pictures(how: inputs.Image) -> str:
    then = f"crop the centre to {how.input_size}" if how.long_side is None else f"the longer to {how.long_side} at most"
    return (
        f"Resize the shorter side to {how.resize} pixels ({how.interpolation}), {then}, "
        f"scale to [0, 1], subtract {_numbers(how.mean)}, divide by {_numbers(how.std)}."
    )


def _purpose(spec: ModelSpec, purpose: str) -> str:
    if spec.head == "backbone":
        strides = ", ".join(str(stride) for stride in spec.architecture.strides)
        return f"{purpose} at strides {strides}"
    return f"{purpose}, {spec.num_classes} classes" if spec.num_classes else "pooled image features, no head"


def _classes(spec: ModelSpec) -> str:
    if spec.classes is None:
        return f"{spec.num_classes}, without names."
    shown = ", ".join(spec.classes[:20])
    more = f", and {spec.num_classes - 20} more in `config.json`" if spec.num_classes > 20 else ""
    return f"{spec.num_classes}: {shown}{more}."


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
