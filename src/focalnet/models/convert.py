"""`focalnet convert`: a weight file from one layout into another, bit by bit the same numbers.

classifiers, backbones    official, timm, transformers
Mask R-CNN                mmdet, focalnet (Cascade Mask R-CNN, ATSS and Sparse R-CNN too)
DINO                      official, detrex
UPerNet                   mmseg, focalnet
Mask2Former               facebookresearch, focalnet
"""

import logging
from pathlib import Path
from typing import cast

from focalnet.errors import UserError, unknown
from focalnet.models.loading import describe
from focalnet.models.registry import find_layout, get_family
from focalnet.weights.files import amiss, check_suffix, read_checkpoint, whole, write_state_dict
from focalnet.weights.layouts import LayoutName, convert_state_dict, detect_layout
from focalnet.weights.sources import SPEC_KEY, resolve, stored_spec
from focalnet.weights.spec import Said

logger = logging.getLogger(__name__)


def convert_file(src: str | Path, dst: str | Path, *, to: str, use_postln: bool | None = None) -> Path:
    """Write the weights of `src` to `dst` in another layout.

    What is known about the network (classes, preprocessing, options) travels in the header of a `.safetensors` file,
    and in an official `.pth` beside the weights; the other formats have no place for it. For a detector or segmenter
    that includes what its layout means without saying it, such as the padding of an overlapped stem, and class names
    unless they would be guessed.

    Args:
        src: a weight file, a model or run folder, or a hub id, in any layout.
        dst: the file to write: `.safetensors`, `.pth`, `.pt` or `.bin`.
        to: a layout for this kind of network, see the table on top of this module.
        use_postln: whether the blocks are res-post-norm, for timm; without it, what describes the file or its shapes
            tell it.

    Returns:
        `dst`.

    Raises:
        UserError: `src` is no FocalNet's, `to` is no layout for it, `dst` is `src` or has another suffix, or the disk
            is full.
    """
    target = Path(dst)
    check_suffix(target)
    located = resolve(src)
    if target.exists() and target.samefile(located.path):
        raise UserError(f"{target} is the file to read; give another name for the file to write.")
    checkpoint = read_checkpoint(located.path)
    source = find_layout(checkpoint.state_dict)
    if what := amiss(source.read_by(checkpoint.state_dict) if source else checkpoint.state_dict):
        logger.warning("%s: %s; written as they are", located.path, what)
    spec = stored_spec(located, checkpoint)
    metadata = checkpoint.metadata | ({SPEC_KEY: spec.to_json()} if spec else {})
    if source is not None:
        known = {layout.name: layout for layout in get_family(source.head).layout_tables}
        if to not in known:
            raise unknown(f"layout of {source.head} weights", to, known)
        with whole(located.path):
            weights = source.read(checkpoint.state_dict)
            spec = describe(source, weights, located, checkpoint)
            converted = known[to].write(weights)
        if spec.says("variant") < Said.GUESS:
            guesses = {name: None for name in ("classes", "things", "task") if spec.says(name) == Said.GUESS}
            metadata = checkpoint.metadata | {SPEC_KEY: spec.replace(**guesses).to_json()}
        write_state_dict(target, converted, wrapper=known[to].wrapper, metadata=metadata)
        logger.info("%s (%s) -> %s (%s)", located.path, source.name, target, to)
        return target
    if use_postln is None and spec is not None:
        use_postln = spec.backbone.use_postln
    converted = convert_state_dict(checkpoint.state_dict, to=cast(LayoutName, to), use_postln=use_postln)
    wrapper = "model" if to == "official" else None
    write_state_dict(target, converted, wrapper=wrapper, metadata=metadata)
    logger.info("%s (%s) -> %s (%s)", located.path, detect_layout(checkpoint.state_dict), target, to)
    if spec and spec.backbone.normalize_modulator and to != "official":
        logger.info("this network divides its modulator: build it in %s with normalize_modulator=True", to)
    return target
