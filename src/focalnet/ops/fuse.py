"""The fast focal operator inside models of other libraries: `fuse(model)` and back.

timm, transformers and the official code each carry a focal modulation of their own, with the same parameters in
other shapes. `fuse` gives every such layer a forward pass on `focal_context` and leaves the layer, its parameters and
its name where they are: state dict, optimiser, hooks on the layer and checkpoints do not notice.

    library        input of the layer    query, context, gates   modulator            output            LayerNorm
    timm           (B, C, H, W)          f, a 1x1 convolution    h                    proj, idem        norm
    transformers   (B, H, W, C)          projection_in           projection_context   projection_out    layernorm
    official       (B, H, W, C)          f                       h                    proj              ln

What changes: the official layer no longer leaves `gates` and `modulator` on itself.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from focalnet.errors import UserError
from focalnet.ops import focal_context, linear, linear_slices


@dataclass(frozen=True)
class Flavour:
    """How a library calls the parts of its focal modulation."""

    library: str
    f: str
    h: str
    proj: str
    norm: str
    drop: str
    act: str
    channels_first: bool
    product: type[nn.Module]
    """What `f` and `proj` are."""


TIMM = Flavour("timm", "f", "h", "proj", "norm", "proj_drop", "act", True, nn.Conv2d)
OFFICIAL = Flavour("the official code", "f", "h", "proj", "ln", "proj_drop", "act", False, nn.Linear)
TRANSFORMERS = Flavour(
    "transformers", "projection_in", "projection_context", "projection_out", "layernorm", "projection_dropout",
    "activation", False, nn.Linear,
)  # fmt: skip


def fuse(model: nn.Module) -> nn.Module:
    """Let the focal modulations of a timm, transformers or official FocalNet run on `focal_context`, in place.

    Values and gradients stay the same up to rounding; the parameters are shared, not copied; training goes on.

    Args:
        model: a model, or a part of one, that holds focal modulation layers of another library.

    Returns:
        the same object.

    Raises:
        UserError: there is no such layer, or one of them differs from focal modulation as published; nothing is
            changed then.

    Example:
        >>> model = focalnet.fuse(timm.create_model("focalnet_tiny_lrf"))
    """
    found = [(name, module, _flavour(module)) for name, module in model.named_modules()]
    layers = [(name, module, flavour) for name, module, flavour in found if flavour is not None]
    if not layers:
        raise UserError(
            f"{type(model).__name__} holds no focal modulation of timm, transformers or the official code to fuse; "
            "focalnet's own models run on the fast operator as they are."
        )
    for name, module, flavour in layers:
        reason = _obstacle(module, flavour)
        if reason is not None:
            raise UserError(f"cannot fuse {name or type(module).__name__}: {reason}.")
    for _, module, flavour in layers:
        module.forward = partial(_forward, module, flavour)
    return model


def unfuse(model: nn.Module) -> nn.Module:
    """Undo `fuse`: the layers get the forward pass of their class back. Returns the same object."""
    for module in model.modules():
        if _is_fused(module):
            del module.forward
    return model


def _forward(module: Any, flavour: Flavour, x: Tensor) -> Tensor:
    f, h, proj = (getattr(module, name) for name in (flavour.f, flavour.h, flavour.proj))
    levels = len(module.focal_layers)
    if flavour.channels_first:
        x = x.permute(0, 2, 3, 1)
    channels = x.shape[-1]
    sizes = (channels, channels, levels + 1)
    query, context, gates = linear_slices(x, f.weight.flatten(1), f.bias, sizes)
    context = focal_context(context, gates, [layer[0].weight for layer in module.focal_layers])
    if module.normalize_modulator:
        context = context / (levels + 1)
    y = query * linear(context, h.weight.flatten(1), h.bias)
    norm = getattr(module, flavour.norm, None)
    if norm is not None:
        y = norm(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if flavour.channels_first else norm(y)
    y = getattr(module, flavour.drop)(linear(y, proj.weight.flatten(1), proj.bias))
    return y.permute(0, 3, 1, 2) if flavour.channels_first else y


def _is_fused(module: nn.Module) -> bool:
    forward = vars(module).get("forward")
    return isinstance(forward, partial) and forward.func is _forward


def _flavour(module: Any) -> Flavour | None:
    """Which library a focal modulation is from, by its parts; None for any other module, ours included."""
    if not isinstance(getattr(module, "focal_layers", None), nn.ModuleList):
        return None
    if hasattr(module, TRANSFORMERS.f):
        return TRANSFORMERS
    if not all(hasattr(module, part) for part in ("f", "h", "proj", "act")):
        return None
    return TIMM if isinstance(module.f, nn.Conv2d) else OFFICIAL


def _obstacle(module: Any, flavour: Flavour) -> str | None:
    """Why a layer cannot be fused, or None."""
    if "forward" in vars(module) and not _is_fused(module):
        return "its forward is already replaced by something else; undo that first"
    for name, wanted in ((flavour.f, flavour.product), (flavour.h, nn.Conv2d), (flavour.proj, flavour.product)):
        part = getattr(module, name)
        if type(part) is not wanted:
            return f"{name} is a {type(part).__name__} and not a {wanted.__name__}; merge or remove the wrapper first"
    convolutions = [layer[0] for layer in module.focal_layers]
    for index, convolution in enumerate(convolutions):
        plain = type(convolution) is nn.Conv2d and convolution.bias is None and convolution.padding_mode == "zeros"
        if not plain or convolution.groups != convolution.in_channels != 1:
            return f"focal_layers.{index}.0 is not a plain depth-wise convolution without bias"
        size = convolution.kernel_size
        same = convolution.padding == tuple(k // 2 for k in size) and all(k % 2 == 1 for k in size)
        if not same or convolution.stride != (1, 1) or convolution.dilation != (1, 1):
            return f"focal_layers.{index}.0 does not keep the size of the map as a convolution of odd kernel does"
    activations = [getattr(module, flavour.act), *(layer[1] for layer in module.focal_layers)]
    for activation in activations:
        if not isinstance(activation, nn.GELU) or activation.approximate != "none":
            return f"it uses {activation}, and focal modulation the exact GELU"
    if getattr(module, flavour.f).weight.shape[0] != 2 * module.dim + len(convolutions) + 1:
        return f"{flavour.f} does not make query, context and {len(convolutions) + 1} gates"
    inner = [part for part in module.modules() if part is not module]
    if any(part._forward_hooks or part._forward_pre_hooks for part in inner if not isinstance(part, nn.LayerNorm)):
        return "modules inside it have forward hooks, which would not fire; remove them first"
    return None
