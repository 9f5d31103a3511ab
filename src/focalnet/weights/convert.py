"""`focalnet convert`: a weight file from one layout into another, bit by bit the same numbers."""

import logging
from pathlib import Path

from focalnet.errors import UserError
from focalnet.weights.files import check_suffix, read_checkpoint, write_state_dict
from focalnet.weights.layouts import Layout, convert_state_dict, detect_layout
from focalnet.weights.sources import SPEC_KEY, read_spec, resolve

logger = logging.getLogger(__name__)


def convert_file(src: str | Path, dst: str | Path, *, to: Layout, use_postln: bool | None = None) -> Path:
    """Write the weights of `src` to `dst` in another layout.

    What is known about the network (classes, preprocessing, options) travels in the header of a `.safetensors` file,
    and in an official `.pth` beside the weights; the other formats have no place for it.

    Args:
        src: a weight file, a model or run folder, or a hub id, in any layout.
        dst: the file to write: `.safetensors`, `.pth`, `.pt` or `.bin`.
        to: "official", "timm" or "transformers".
        use_postln: whether the blocks are res-post-norm, for timm; without it, what describes the file or its shapes
            tell it.

    Returns:
        `dst`.

    Raises:
        UserError: `src` is no FocalNet's, `dst` is `src` or has another suffix, or the disk is full.
    """
    target = Path(dst)
    check_suffix(target)
    located = resolve(src)
    if target.exists() and target.samefile(located.path):
        raise UserError(f"{target} is the file to read; give another name for the file to write.")
    checkpoint = read_checkpoint(located.path)
    spec = located.spec or read_spec(checkpoint)
    if use_postln is None and spec is not None:
        use_postln = spec.architecture.use_postln
    converted = convert_state_dict(checkpoint.state_dict, to=to, use_postln=use_postln)
    metadata = checkpoint.metadata | ({SPEC_KEY: spec.to_json()} if spec else {})
    wrapper = "model" if to == "official" else None
    write_state_dict(target, converted, wrapper=wrapper, metadata=metadata)
    logger.info("%s (%s) -> %s (%s)", located.path, detect_layout(checkpoint.state_dict), target, to)
    if spec and spec.architecture.normalize_modulator and to != "official":
        logger.info("this network divides its modulator: build it in %s with normalize_modulator=True", to)
    return target
