"""What a FocalNet does with an image: the three images of the paper, as arrays and as one sheet, and Grad-CAM.

    kernels       a depth-wise kernel, averaged over its channels: last block of each stage, every level   (Fig. 10, 11)
    gates         g of the last block: where each level counts                                        (Fig. 5, 12 to 14)
    modulators    the length of the modulator m at each position: last block of each stage            (Fig. 1, 6, 7, 15)
    grad_cam      where the last map speaks for one class                                 (Selvaraju et al., ICCV 2017)

As in the official notebook the image is resized to the input size on its shorter side and not cropped to a square;
where the network was trained on squashed or padded images, it is what the network sees.
What differs: the few pixels of the longer side that fill no whole position of the last map are cut off, so that the
maps lie exactly over the image; the forward pass leaves nothing behind in the model (`capture`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from focalnet import inputs
from focalnet.backbone import KINDS, FocalNetBase
from focalnet.errors import MissingExtraError, UserError, unknown
from focalnet.inputs.image import Signal, pixels_of
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.modulation import FocalModulation, capture, evaluating
from focalnet.visualize.explanation import Explanation

__all__ = ["Explanation", "capture", "explain"]

LONGEST = 8
"""Sides of an image beyond this ratio are cut to it, around the centre."""


def explain(
    model: nn.Module,
    image: Signal,
    *,
    preprocessing: inputs.Image | None = None,
    target: int | str | None = None,
    grad_cam: bool = False,
) -> Explanation:
    """Run an image through a FocalNet and collect what it did. The model is afterwards as it was before.

    Args:
        model: a `FocalNetClassifier`, a `FocalNet`, or a module that holds one of them.
        image: the image: what `inputs.Image.read` gives, or takes.
        preprocessing: how it is read and seen; by default those of `model.spec`.
        target: the class that Grad-CAM explains, by number or name; by default the likeliest.
        grad_cam: also compute Grad-CAM, which needs a classifier.

    Raises:
        UserError: there is no FocalNet in `model` or it takes no images, or Grad-CAM is asked of a model without
            classes or for a class that it does not have.
        MissingExtraError: Grad-CAM without captum.
    """
    if hasattr(model, "exported"):
        raise UserError("explanations look into the network, and an exported file is closed; take what was exported.")
    network = next((module for module in model.modules() if isinstance(module, FocalNetBase)), None)
    if network is None:
        raise UserError(f"{type(model).__name__} holds no FocalNet, so there is nothing to explain.")
    if network.config.spatial_dims != 2:
        name = KINDS[network.config.spatial_dims - 1][0]
        raise UserError(f"the explanations are drawn over images, and this FocalNet takes {name}; see `capture`.")
    classifier = network if isinstance(network, FocalNetClassifier) and network.num_classes else None
    if grad_cam and classifier is None:
        raise UserError(f"Grad-CAM explains the classes of a classifier, no {type(model).__name__}; leave it out.")
    spec = getattr(model, "spec", None) or getattr(network, "spec", None)
    how = preprocessing or (spec.preprocessing if spec else inputs.Image())
    if not isinstance(how, inputs.Image):
        raise UserError(f"the explanations are drawn over images, and this network takes {how.kind}; see `capture`.")
    target = _class_number(target, spec.classes if spec else None)
    pixels = _pixels(image, how, network.config.strides[-1])
    weight = next(network.parameters())
    mean, std = (torch.tensor(values)[:, None, None] for values in (how.mean, how.std))
    tensor = ((pixels - mean) / std)[None].to(weight.device, weight.dtype)

    last = [f"layers.{stage}.blocks.{depth - 1}.modulation" for stage, depth in enumerate(network.config.depths)]
    with evaluating(model):
        with torch.no_grad(), capture(network) as parts:
            output = classifier(tensor) if classifier else network.forward_stages(tensor)
        explanation = Explanation(
            image=_array(pixels[[0, 1, 2] if len(pixels) >= 3 else [0, 0, 0]].permute(1, 2, 0)),
            kernels=[_mean_kernels(network.get_submodule(name)) for name in last],
            gates=_array(parts[last[-1]].gates[0].permute(2, 0, 1)),
            modulators=[_array(parts[name].modulator[0].float().norm(dim=-1)) for name in last],
            logits=_array(output[0]) if classifier else None,
            classes=spec.classes if spec else None,
            threshold=_threshold(classifier),
        )
        if grad_cam and classifier:
            explanation.target = int(output[0].argmax()) if target is None else target
            explanation.grad_cam = _grad_cam(classifier, tensor, explanation.target)
    return explanation


def _threshold(classifier: FocalNetClassifier | None) -> float | None:
    """The least score of a label of a multi-label classifier."""
    if classifier is None or not classifier.multilabel:
        return None
    return 0.5 if classifier.spec.threshold is None else classifier.spec.threshold


def _class_number(target: int | str | None, names: Sequence[str] | None) -> int | None:
    """The number of a class, which may be told by its name."""
    if not isinstance(target, str):
        return target
    if names and target in names:
        return names.index(target)
    if target.isdecimal():
        return int(target)
    if not names:
        raise UserError(f"the classes of this network have no names; give a number in the place of {target!r}.")
    raise unknown("class", target, names)


def _pixels(image: Signal, how: inputs.Image, stride: int) -> Tensor:
    """(C, H, W), 0 to 1, H and W multiples of `stride`."""
    from torchvision.transforms.v2 import functional as tf

    signal = how.read(image)
    seen: Any = signal if isinstance(signal, Image) else pixels_of(signal)
    if how.long_side is None and how.view != "crop":
        seen = how.seen(seen)
    else:
        limit = LONGEST * min(signal.size)
        seen = how.covering(tf.center_crop(seen, [min(side, limit) for side in signal.size[::-1]]), how.size)
    pixels = tf.pil_to_tensor(seen) if isinstance(seen, Image) else seen
    height, width = (max(stride, side // stride * stride) for side in pixels.shape[1:])
    return tf.center_crop(pixels, [height, width]).float() / 255


def _mean_kernels(modulation: nn.Module) -> list[np.ndarray]:
    assert isinstance(modulation, FocalModulation)
    return [_array(layer[0].weight.float().mean(dim=(0, 1))) for layer in modulation.focal_layers]


def _grad_cam(model: FocalNetClassifier, tensor: Tensor, target: int) -> np.ndarray:
    """Grad-CAM on the output of the last block, up-sampled to the image: (H, W)."""
    if not 0 <= target < model.num_classes:
        raise UserError(f"There is no class {target}; the model has the classes 0 to {model.num_classes - 1}.")
    try:
        from captum.attr import LayerAttribution, LayerGradCam
    except ImportError:
        raise MissingExtraError("Grad-CAM", "train") from None
    tap = nn.Identity()  # captum takes the second axis for the channels, our maps have them last

    def tapped(module: nn.Module, arguments: tuple, y: Tensor) -> Tensor:
        return tap(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    last = model.get_submodule(f"layers.{len(model.layers) - 1}.blocks.{model.config.depths[-1] - 1}")
    handle = last.register_forward_hook(tapped)
    tensor = tensor.clone().requires_grad_()
    try:
        with torch.enable_grad():
            cam: Any = LayerGradCam(model, tap).attribute(tensor, target=target, relu_attributions=True)
    finally:
        handle.remove()
    height, width = tensor.shape[2:]
    return _array(LayerAttribution.interpolate(cam.float(), (height, width), "bilinear")[0, 0])


def _array(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()
