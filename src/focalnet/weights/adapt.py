"""Weights of one FocalNet fitted to another: other classes, larger kernels, more focal levels, another use.

    head        as many classes: kept; 21842 -> 1000: the first 1000 rows (below); otherwise the model's own fresh head;
                of a detector or segmenter, all that depends on the classes is the model's own, or nothing is
    whole       a detector or segmenter into one of its kind: nothing else is adapted
    films       what looks along time is new; a stem for several frames has the kernel of one, spread over them
    channels    of the images: the stem's kernels for red, green and blue in turn, times 3 / C; summed up for one
                                                                                   as timm does
    kernels     k < K: zeros around; k > K: the centre                         official detection code
    levels      more: gate rows of the new levels are zero, the last row stays the global gate; fewer: refused
    dense use   `norm` and `head` of the classifier are left out, the norms of the maps start as identity

ImageNet-22K heads: the official label map puts the 1000 classes of ImageNet-1K first, in their usual order, so the
first 1000 rows are a head for ImageNet-1K. Index 850 (teddy bear) is the exception: ImageNet-22K does not have that
class, its row was never trained, and the class cannot be predicted.

The kernel of a new level keeps the model's random start, as in the official code; Table 21 of the paper speaks of
zeros. With a zero kernel the new last level is GELU(0) = 0, and with it the global context, which is pooled from it:
the pretrained global gate would multiply nothing. In either case the output changes, since that pool moves to the new
level; growing kernels, in contrast, changes nothing.

Each change is one line in the log. Whatever still differs afterwards is an error that lists it.
"""

import logging
import re
from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.errors import UserError
from focalnet.labels import CLASSES_1K, CLASSES_22K
from focalnet.weights.architecture import infer_variant, under

logger = logging.getLogger(__name__)

_KERNEL = re.compile(r"(layers\.(\d+)\.blocks\.\d+\.modulation\.)focal_layers\.\d+\.0\.weight")
_GATES = re.compile(r"layers\.(\d+)\.blocks\.\d+\.modulation\.f\.(weight|bias)")
_MAP_NORM = re.compile(r"norm\d\.(weight|bias)")
_UNREAD = re.compile(r".+\.(num_batches_tracked|empty_weight)")
"""Counters and the loss's class weights: no prediction reads them, and some files lack them."""
_SETTING = re.compile(r".+\.empty_weight")
"""What an option of the model says, in the file too."""


def adapt_state_dict(
    state_dict: Mapping[str, Tensor], model: nn.Module, *, fresh_head: bool = False
) -> dict[str, Tensor]:
    """A state dict that `model.load_state_dict(..., strict=True)` takes.

    Args:
        state_dict: in the official layout.
        model: a `FocalNetClassifier` or `FocalNet`; what the weights lack keeps its values.
        fresh_head: keep the model's own head even where the sizes agree, because the classes are others.

    Returns:
        the names and shapes of `model`.

    Raises:
        UserError: the weights have more focal levels, or names or shapes still differ.
    """
    own = model.state_dict()
    weights = dict(state_dict)
    if "norm.weight" in own:
        _fit_head(weights, own, fresh_head)
    else:
        _fit_dense(weights, own)
    _fit_channels(weights, own, "")
    _fit_additions(weights, own, getattr(model, "additions", ""))
    _fit_levels(weights, own)
    _fit_kernels(weights, own)
    _check(state_dict, weights, own)
    return {name: weights[name] for name in own}


def adapt_dense(
    state_dict: Mapping[str, Tensor],
    model: nn.Module,
    *,
    backbone: nn.Module,
    prefix: str,
    class_parameters: Collection[str],
    whole: bool,
    written: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The same for a detector or segmenter. A network of the same kind is taken as it is: only classes may differ.

    Args:
        state_dict: of the whole network under our names, or of a backbone alone.
        model: what is loaded.
        backbone, prefix: its backbone, and what the names of the backbone begin with.
        class_parameters: names whose shape depends on the number of classes.
        whole: whether `state_dict` is a network of the same kind; otherwise the head keeps its random values.
        written: names and shapes that `state_dict` should have, where its classes are others than the model's; the
            model then keeps its own `class_parameters`.

    Raises:
        UserError: names or shapes differ.
    """
    own = model.state_dict()
    if not whole:
        logger.info("head: new and random; the weights are of another kind")
        return {**own, **{prefix + name: tensor for name, tensor in adapt_state_dict(state_dict, backbone).items()}}
    expected = own if written is None else written
    lacked = {name for name in own if _UNREAD.fullmatch(name) and name not in state_dict}
    weights = {**state_dict, **{name: expected[name] for name in lacked}}
    _fit_channels(weights, expected, prefix)
    _check(under(state_dict, prefix), weights, expected)
    kept = lacked | {name for name in own if _SETTING.fullmatch(name)}
    if written is not None:
        logger.info("classes: %d parameters are new and random (%s)", len(class_parameters), _modules(class_parameters))
        kept |= set(class_parameters)
    return {name: own[name] if name in kept else weights[name] for name in own}


def _fit_head(weights: dict[str, Tensor], own: Mapping[str, Tensor], fresh: bool) -> None:
    there = weights["head.weight"].shape[0] if "head.weight" in weights else 0
    here = own["head.weight"].shape[0] if "head.weight" in own else 0
    if there == here and not fresh:
        return
    head = {name: weights.pop(name) for name in list(weights) if name.startswith("head.")}
    if here == 0:
        logger.info("head: left out, the model has none (the weights have %d classes)", there)
    elif (there, here) == (CLASSES_22K, CLASSES_1K) and not fresh:
        logger.info("head: took rows 0 to 999 of 21842: ImageNet-1K; row 850 (teddy bear) was never trained")
        weights.update({name: tensor[:CLASSES_1K] for name, tensor in head.items()})
    else:
        logger.info("head: new and random, %d classes (the weights have %s)", here, there or "no head")
        weights.update({name: own[name] for name in own if name.startswith("head.")})


def _fit_channels(weights: dict[str, Tensor], own: Mapping[str, Tensor], prefix: str) -> None:
    """A stem for images of another number of channels."""
    stem = f"{prefix}patch_embed.proj.weight"
    there, here = weights.get(stem), own.get(stem)
    if there is None or here is None or there.ndim != 4 or here.shape[1] == there.shape[1] or there.shape[1] != 3:
        return
    count = here.shape[1]
    if count == 1:
        weights[stem] = there.sum(1, keepdim=True)
    else:
        weights[stem] = there[:, [channel % 3 for channel in range(count)]] * (3 / count)
    logger.info("stem: for %d channel%s instead of 3", count, "s" * (count > 1))


def _fit_additions(weights: dict[str, Tensor], own: Mapping[str, Tensor], additions: str) -> None:
    """What a relative has beyond the FocalNet that the weights are of; a stem for several frames sees them as one."""
    stem = "patch_embed.proj.weight"
    there, here = weights.get(stem), own[stem]
    if there is not None and here.ndim == 5 and there.ndim == 4:
        frames = here.shape[2]
        weights[stem] = (there / frames)[:, :, None].expand(-1, -1, frames, -1, -1).contiguous()
        logger.info("stem: spread over %d frames", frames)
    new = [name for name in own if additions and re.fullmatch(additions, name)]
    if new and not any(name in weights for name in new):
        logger.info("%d tensors that an image needs not, new and random: %s, …", len(new), new[0])
        weights.update({name: own[name] for name in new})


def _fit_dense(weights: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
    dropped = [name for name in weights if re.fullmatch(r"(norm|head)\.(weight|bias)|" + _MAP_NORM.pattern, name)]
    dropped = [name for name in dropped if name not in own]
    fresh = [name for name in own if _MAP_NORM.fullmatch(name) and name not in weights]
    for name in dropped:
        del weights[name]
    for name in fresh:
        weights[name] = own[name]
    if dropped or fresh:
        logger.info("dense use: left out %s; start as identity: %s", _modules(dropped), _modules(fresh))


def _fit_levels(weights: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
    grown: dict[str, str] = {}
    for name, target in own.items():
        match = _GATES.fullmatch(name)
        if match is None or name not in weights or weights[name].shape[0] == target.shape[0]:
            continue
        width = name.replace(".f.", ".proj.").replace(".weight", ".bias")
        if width not in weights or weights[width].shape != own[width].shape:
            continue  # another width: for the list of what differs
        gates, wanted = (tensor.shape[0] - 2 * own[width].shape[0] for tensor in (weights[name], target))
        if gates > wanted:
            raise UserError(
                f"the weights have {gates - 1} focal levels in stage {match[1]}, the model {wanted - 1}; a trained "
                f"level cannot be left out: build the model with focal_levels={gates - 1}."
            )
        zeros = weights[name].new_zeros(wanted - gates, *target.shape[1:])
        weights[name] = torch.cat([weights[name][:-1], zeros, weights[name][-1:]])
        grown[match[1]] = f"stage {match[1]} {gates - 1} -> {wanted - 1}"
    for name in own:
        match = _KERNEL.fullmatch(name)
        if match and match[2] in grown and name not in weights:
            weights[name] = own[name]
    if grown:
        logger.info("focal levels: %s; new gates are zero, new kernels random", ", ".join(grown.values()))


def _fit_kernels(weights: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
    changes: dict[str, int] = {}
    for name, target in own.items():
        if not _KERNEL.fullmatch(name) or name not in weights:
            continue
        there, here = weights[name].shape[-1], target.shape[-1]
        if there == here or weights[name].ndim != target.ndim or weights[name].shape[:2] != target.shape[:2]:
            continue
        left = (here - 1) // 2 - (there - 1) // 2  # the centre stays, of even sizes too; negative padding cuts off
        weights[name] = F.pad(weights[name], (left, here - there - left) * (target.ndim - 2))
        change = f"{there} -> {here} ({'zero-padded' if here > there else 'centre kept, the rest cut off'})"
        changes[change] = changes.get(change, 0) + 1
    if changes:
        logger.info("depth-wise kernels: %s", ", ".join(f"{count} of {change}" for change, count in changes.items()))


def _check(original: Mapping[str, Tensor], weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise UserError(f"the weights do not fit the model: {'; '.join(problems)}; {_hint(original)}.")


def _hint(original: Mapping[str, Tensor]) -> str:
    try:
        name = infer_variant(original)
    except UserError:
        return "they are not a whole FocalNet"
    return f"they look like {name}" if name else "they look like none of the known variants: compare the architecture"


def _modules(names: Collection[str]) -> str:
    return ", ".join(sorted({name.removeprefix("net.").split(".")[0] for name in names})) or "nothing"
