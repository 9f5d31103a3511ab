"""The model card: the README that stands beside published weights, with the metrics where they are known.

The header is written by `huggingface_hub`, so the hub shows the licence, the task and the metrics of the card.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focalnet import inputs
from focalnet.reading import read_object
from focalnet.schemas import as_type
from focalnet.weights.spec import ModelSpec

PAPER = "https://arxiv.org/abs/2203.11926"


@dataclass(frozen=True)
class Evaluation:
    """What a model achieved.

    Attributes:
        metrics: name -> value.
        data: what it was evaluated on, a short name.
    """

    metrics: Mapping[str, float]
    data: str

    @classmethod
    def of_run(cls, folder: str | Path) -> "Evaluation | None":
        """The evaluation that a run folder keeps of its best checkpoint; None where there is none."""
        kept, config = Path(folder, "evaluation.json"), Path(folder, "config.json")
        if not (kept.is_file() and config.is_file()):
            return None
        mapping = dict[str, Any]
        evaluation, task = read_object(kept), as_type(read_object(config).get("task", {}), mapping, f"{config}: task")
        metrics = evaluation.get("metrics", evaluation.get("figures", {}))  # "figures" up to version 0.1.0
        metrics = as_type(metrics, mapping, f"{kept}: metrics")
        quality = {
            name: value
            for name, value in metrics.items()
            if type(value) in (int, float) and not name.endswith(("loss", "per_second"))
        }
        data = as_type(task.get("data"), str | None, f"{config}: task: data")
        return cls(quality, f"the held-out split of {Path(data).name if data else 'the embedded digits'}")


def model_card(
    spec: ModelSpec,
    address: str,
    *,
    title: str,
    purpose: str,
    pipeline: str,
    outputs: str,
    evaluation: Evaluation | None = None,
) -> str:
    """Markdown with the hub's header, made of the spec, the words of the model's family and the metrics.

    Args:
        spec: of the model.
        address: the hub id or folder that `create_model` will find it under.
        title: what people call what stands on the backbone, "" where nothing does.
        purpose: what the model is for, a few words.
        pipeline: the hub's word for that.
        outputs: what a call of the model gives, one word.
        evaluation: what the model achieved, where known.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    backbone = spec.head == "backbone"
    name = f"{title}{' on' if spec.architecture else ''} {spec.variant}" if title else spec.variant
    results: dict[str, Any] = {}
    if evaluation:
        of: dict[str, Any] = {"task_type": pipeline, "dataset_type": "image", "dataset_name": evaluation.data}
        results["model_name"] = name
        results["eval_results"] = [
            EvalResult(**of, metric_type=metric, metric_value=round(value, 6))
            for metric, value in evaluation.metrics.items()
        ]
    header = ModelCardData(
        license=spec.licence, library_name="focalnet", pipeline_tag=pipeline, tags=["focalnet", "focal-modulation"],
        **results,
    )  # fmt: skip
    kind = "FocalNet" if spec.architecture else title
    create = "create_backbone" if backbone else "create_model"
    body = "\n".join(
        [
            f"# {name}", "",
            f"A {kind} ([Focal Modulation Networks]({PAPER})): {_purpose(spec, purpose)}.", "",
            "```python",
            "import focalnet",
            f"model = focalnet.{create}(weights={json.dumps(address)})",
            f"{outputs} = model({_batch(spec)}",
            "```", "",
            *_input(spec.preprocessing),
            *([] if backbone or spec.architecture is None else ["## Classes", "", _classes(spec), ""]),
            *(["## Evaluation", "", *_table(evaluation), ""] if evaluation else []),
            "## Where it comes from", "",
            f"- Weights: {spec.source or 'trained from random weights'}.",
            f"- Licence of the weights: {spec.licence or 'not recorded; ask whoever trained them'}.",
            f"- Architecture: `{_architecture(spec)}`", "",
        ]
    )  # fmt: skip
    return str(ModelCard(f"---\n{header.to_yaml()}\n---\n\n{body}"))


def _table(evaluation: Evaluation) -> list[str]:
    rows = [f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in evaluation.metrics.items()]
    return [f"On {evaluation.data}:", "", "| metric | value |", "| --- | ---: |", *rows]


def _batch(spec: ModelSpec) -> str:
    if isinstance(spec.preprocessing, inputs.Image) and spec.architecture:
        return f"images)  # (B, {spec.architecture.in_channels}, H, W), normalised"
    return f"{spec.preprocessing.kind})"


def _input(how: inputs.Input) -> list[str]:
    describe = getattr(how, "describe", None)  # which a kind from outside may lack
    text = describe() if describe else f"`{json.dumps(inputs.to_dict(how))}`"
    return [f"## {'Images' if isinstance(how, inputs.Image) else 'Input'}", "", text, ""]


def _architecture(spec: ModelSpec) -> str:
    return spec.architecture.to_json() if spec.architecture else json.dumps(spec.head_options)


def _purpose(spec: ModelSpec, purpose: str) -> str:
    if spec.architecture is None:
        return purpose
    if spec.head == "backbone":
        strides = ", ".join(str(stride) for stride in spec.backbone.strides)
        return f"{purpose} at strides {strides}"
    if spec.task == "multilabel":
        purpose = f"multi-label {purpose}"
    return f"{purpose}, {spec.num_classes} classes" if spec.num_classes else "pooled image features, no head"


def _classes(spec: ModelSpec) -> str:
    if spec.classes is None:
        return f"{spec.num_classes}, without names."
    shown = ", ".join(spec.classes[:20])
    more = f", and {spec.num_classes - 20} more in `config.json`" if spec.num_classes > 20 else ""
    return f"{spec.num_classes}: {shown}{more}."
