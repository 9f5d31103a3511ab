"""Focal Modulation Networks (Yang et al., NeurIPS 2022), whole: network, released weights, training, explanation.

`__all__` is the public surface; each name is imported when it is first used.

    >>> import focalnet
    >>> model = focalnet.create_model("focalnet_tiny_lrf", weights="official")
    >>> focalnet.Predictor(model)("tulip.jpg").label
"""

import importlib
from typing import TYPE_CHECKING, Any

from focalnet._version import __version__

if TYPE_CHECKING:
    from focalnet import explain
    from focalnet.api import Evaluation, Run, evaluate, resume, train
    from focalnet.backbone import FocalNet
    from focalnet.embedding import Embeddings, embed
    from focalnet.engine.callbacks import Callback
    from focalnet.engine.check import check
    from focalnet.errors import UserError
    from focalnet.exporting import export
    from focalnet.inputs.image import Preprocessing
    from focalnet.models.classifier.model import FocalNetClassifier
    from focalnet.models.create import create_backbone, create_model, load_weights
    from focalnet.models.publish import push_to_hub, save_pretrained
    from focalnet.models.registry import list_models
    from focalnet.modulation import CausalFocalModulation, FocalModulation, capture
    from focalnet.ops import focal_context
    from focalnet.ops.fuse import fuse, unfuse
    from focalnet.predict import Predictor
    from focalnet.variants import FocalNetConfig
    from focalnet.weights.layouts import convert_state_dict
    from focalnet.weights.spec import ModelSpec

_HOME = {
    "Callback": "engine.callbacks",
    "CausalFocalModulation": "modulation",
    "Embeddings": "embedding",
    "Evaluation": "api",
    "FocalModulation": "modulation",
    "FocalNet": "backbone",
    "FocalNetClassifier": "models.classifier.model",
    "FocalNetConfig": "variants",
    "ModelSpec": "weights.spec",
    "Predictor": "predict",
    "Preprocessing": "inputs.image",
    "Run": "api",
    "UserError": "errors",
    "capture": "modulation",
    "check": "engine.check",
    "convert_state_dict": "weights.layouts",
    "create_backbone": "models.create",
    "create_model": "models.create",
    "embed": "embedding",
    "evaluate": "api",
    "export": "exporting",
    "focal_context": "ops",
    "fuse": "ops.fuse",
    "list_models": "models.registry",
    "load_weights": "models.create",
    "push_to_hub": "models.publish",
    "resume": "api",
    "save_pretrained": "models.publish",
    "train": "api",
    "unfuse": "ops.fuse",
}

__all__ = [
    "Callback",
    "CausalFocalModulation",
    "Embeddings",
    "Evaluation",
    "FocalModulation",
    "FocalNet",
    "FocalNetClassifier",
    "FocalNetConfig",
    "ModelSpec",
    "Predictor",
    "Preprocessing",
    "Run",
    "UserError",
    "__version__",
    "capture",
    "check",
    "convert_state_dict",
    "create_backbone",
    "create_model",
    "embed",
    "evaluate",
    "explain",
    "export",
    "focal_context",
    "fuse",
    "list_models",
    "load_weights",
    "push_to_hub",
    "resume",
    "save_pretrained",
    "train",
    "unfuse",
]


def __getattr__(name: str) -> Any:
    if name == "explain":
        return importlib.import_module("focalnet.explain")
    if name not in _HOME:
        raise AttributeError(f"module 'focalnet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"focalnet.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
