"""From what a user writes after `weights=` to tensors in the official layout and the facts about them.

    "official" | "timm" | "transformers"      the released file of the variant           hub
    a file                                    any layout, any wrapper                     files, layouts
    a folder                                  config.json and weights; of a run, `best`, else `last`
    "organisation/name", "hf-hub:…"           a folder on the hub                         hub, foreign

A bare file says nothing but its shapes. It is then named after the released file of the same name, or recognised, or
it takes the name that the user gave; and 1000 classes without names are taken for ImageNet-1K. Of a detector or
segmenter, the training code may have written the names of its classes into the file; otherwise their number suggests
COCO's, ADE20K's or Cityscapes'.
"""

import difflib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from focalnet.errors import UserError
from focalnet.labels import CLASSES_1K
from focalnet.reading import parse_json
from focalnet.variants import get_variant
from focalnet.weights.architecture import contradiction, infer_variant, under
from focalnet.weights.files import IN_MEMORY, READ_SUFFIXES, Checkpoint
from focalnet.weights.hub import (
    ENTRIES,
    SOURCES,
    UNSETTLED,
    WeightsEntry,
    default_preprocessing,
    download,
    download_folder,
    find,
    imagenet_classes,
    released_as,
)
from focalnet.weights.layouts import convert_state_dict, stored_use_postln
from focalnet.weights.spec import ModelSpec, Said, merge
from focalnet.weights.third_party import read_folder_config

logger = logging.getLogger(__name__)

SPEC_KEY = "focalnet"
"""Where a safetensors header carries a `ModelSpec` as JSON."""

_HUB_ID = re.compile(r"(?:hf[-_]hub:|https://huggingface\.co/)?(\w[\w.-]*/\w[\w.-]*)")
_FOLDER_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


Source = str | os.PathLike[str] | Mapping[str, Any]
"""What a user writes after `weights=`: the module's text lists it; or a state dict."""


def named(weights: Source) -> str:
    """What to call weights in a sentence."""
    return str(IN_MEMORY) if isinstance(weights, Mapping) else os.fspath(weights)


@dataclass(frozen=True)
class Located:
    """A weight file on this machine.

    Attributes:
        path: the file.
        spec: its network, where something beside the file tells it.
        entry: the released file that it is, of a detector.
        config: the `config.json` beside it, where it is none of a FocalNet: a layout may understand it.
    """

    path: Path
    spec: ModelSpec | None = None
    entry: WeightsEntry | None = None
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Weights:
    """Weights ready to be adapted.

    Attributes:
        state_dict: in the official layout; of a whole network, under our names.
        spec: the network that they are of, and who says what about it.
        backbone_prefix: what the backbone's names begin with.
    """

    state_dict: dict[str, Tensor]
    spec: ModelSpec
    backbone_prefix: str = ""

    def backbone(self) -> dict[str, Tensor]:
        """The backbone's tensors in the official layout (of a classifier, with its head)."""
        return under(self.state_dict, self.backbone_prefix)


def resolve(weights: str | Path, variant: str | None = None, *, head: str = "classifier") -> Located:
    """Find a weight file, downloading it where needed.

    Args:
        weights: what the module's text lists.
        variant: the model's name, for "official", "timm" and "transformers".
        head: what stands on the backbone; where no such file was released, the classifier's is found.

    Raises:
        UserError: nothing is found; the message says what was looked for.
    """
    text = str(weights)
    if text.lower() in SOURCES:
        if variant is None:
            raise UserError(f"weights={text!r} needs the name of a model, for example 'focalnet_tiny_lrf'.")
        return _released(_released_for(variant, text, head))
    path = Path(text).expanduser()
    if path.is_dir():
        return _in_folder(path, path.name)
    if path.is_file():
        described = path.name in _FOLDER_WEIGHTS and (path.parent / "config.json").is_file()
        return _described(path, path.parent.name) if described else Located(path)
    if text.lower() in ENTRIES:
        return _released(find(text))
    hub_id = _HUB_ID.fullmatch(text)
    if hub_id and path.suffix not in READ_SUFFIXES:
        return _in_folder(download_folder(hub_id[1]), hub_id[1])
    near = difflib.get_close_matches(text.lower(), [*SOURCES, *ENTRIES], n=1)
    raise UserError(
        f"there are no weights {text!r}: no such file or folder, "
        + (
            f"did you mean {near[0]!r}?"
            if near
            else f"and it is neither {', '.join(SOURCES)} nor a hub id like 'org/name'."
        )
    )


def located(weights: str | Path, *, recorded: bool = False) -> str:
    """`weights` as they are found from any folder: an absolute path, or a name that nothing here hides.

    Args:
        weights: what the module's text lists.
        recorded: they were kept with a run. A name is then one of the hub only where "hf-hub:" marks it, as it does
            from here on.
    """
    text = str(weights)
    path = os.path.abspath(os.path.expanduser(text))
    if text.lower() in SOURCES:
        return text
    if os.path.exists(path):
        return path
    hub_id = _HUB_ID.fullmatch(text)
    if hub_id is None or hub_id[1] != text or text.lower() in ENTRIES:
        return text
    return path if recorded or Path(text).suffix in READ_SUFFIXES else f"hf-hub:{text}"


def _released_for(variant: str, source: str, head: str) -> WeightsEntry:
    for entry in ENTRIES.values():
        if (entry.variant, entry.source, entry.head, entry.unreachable) == (variant, source.lower(), head, None):
            return entry
    if head not in ("classifier", "backbone"):
        logger.info("%s: no file of this head can be downloaded; the backbone starts from classification", head)
    return find(variant, source)


def _released(entry: WeightsEntry) -> Located:
    path = download(entry)
    if entry.head != "classifier":
        return Located(path, entry=entry)
    say_what_is_unsettled(entry.spec)
    return Located(path, entry.spec)


def say_what_is_unsettled(spec: ModelSpec) -> None:
    """A line in the log where sources disagree about the network and the weights do not tell."""
    if spec.variant in UNSETTLED:
        divided = spec.backbone.normalize_modulator
        logger.info("%s: nothing in the weights tells normalize_modulator; took %s", spec.variant, divided)


def _in_folder(folder: Path, origin: str) -> Located:
    for name in ("best", "last"):
        if (folder / name / "model.safetensors").is_file():
            folder = folder / name
            break
    weights = next((folder / name for name in _FOLDER_WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(
            f"{folder} holds no {' or '.join(_FOLDER_WEIGHTS)}; give a model folder, a run with a checkpoint or a file."
        )
    return _described(weights, origin) if (folder / "config.json").is_file() else Located(weights)


def _described(weights: Path, origin: str) -> Located:
    config = read_folder_config(weights.parent, origin)
    return Located(weights, config) if isinstance(config, ModelSpec) else Located(weights, config=config)


def load_classifier(located: Located, checkpoint: Checkpoint, variant: str | None = None) -> Weights:
    """Rename the weights of a classifier or a bare backbone, and say what they are.

    Args:
        located: where they were found.
        checkpoint: what is in the file.
        variant: the model's name, where it is known.

    Raises:
        UserError: they are no FocalNet's, or of an unknown variant and `variant` is not given.
    """
    refuse_config(located)
    told = stored_use_postln(checkpoint.state_dict)
    official = convert_state_dict(checkpoint.state_dict, to="official")
    spec = stored_spec(located, checkpoint)
    if spec is None:
        names = {} if told is None else {"use_postln": told}
        bare = _describe_bare(official, located.path, variant)
        return Weights(official, merge(ModelSpec.partial(Said.SHAPES, architecture=names), bare))
    what = contradiction(spec.backbone, official)
    if "head.weight" in official and len(official["head.weight"]) != spec.num_classes:
        what = what or f"the description says {spec.num_classes} classes, the tensors {len(official['head.weight'])}"
    if what:
        raise UserError(f"{located.path} and its description do not belong together: {what}; put the right one back.")
    if told is not None and told != spec.backbone.use_postln:
        raise UserError(
            f"{located.path} has {'res-post-norm' if told else 'pre-norm'} blocks, but its description says otherwise; "
            f"build the model with use_postln={told} and give the file itself as weights=."
        )
    return Weights(official, spec)


def refuse_config(located: Located) -> None:
    """Refuse a folder whose `config.json` nobody understands.

    Raises:
        UserError: it has one.
    """
    if located.config is not None:
        kind = located.config.get("model_type") or located.config.get("architectures") or "something else"
        path = located.path.with_name("config.json")
        raise UserError(f"{path} describes {kind}, no FocalNet of focalnet, timm or transformers.")


def stored_spec(located: Located, checkpoint: Checkpoint) -> ModelSpec | None:
    """The `ModelSpec` that stands beside a file or travels in its metadata, or None."""
    if located.spec is not None:
        return located.spec
    text, where = checkpoint.metadata.get(SPEC_KEY), f"the description in {located.path.name}"
    return None if text is None else ModelSpec.from_dict(parse_json(text, where), where)


def _describe_bare(official: Mapping[str, Tensor], path: Path, variant: str | None) -> ModelSpec:
    matched = infer_variant(official)
    classes = official["head.weight"].shape[0] if "head.weight" in official else 0
    released = released_as(path.name)
    if released and released.head == "classifier" and (released.variant, released.num_classes) == (matched, classes):
        say_what_is_unsettled(released.spec)
        return _said_by_default(released.spec)
    name = matched or variant
    if name is None:
        raise UserError(f"{path} fits no known variant; name the model that it started from, with what was changed.")
    if classes == CLASSES_1K:
        logger.info("%s: 1000 classes without names are taken for ImageNet-1K; classes= says otherwise", path.name)
    spec = ModelSpec(
        variant=name,
        architecture=get_variant(name),
        num_classes=classes,
        classes=imagenet_classes() if classes == CLASSES_1K else None,
        preprocessing=default_preprocessing(name),
        source=path.name,
    )
    say_what_is_unsettled(spec)
    return _said_by_default(spec)


def _said_by_default(spec: ModelSpec) -> ModelSpec:
    """A description whose architecture is its variant's: shapes fit it, and nothing says the rest."""
    said = {path: Said.DEFAULT for path in spec.facts() if path.startswith("architecture.")}
    return spec.replace(said=said)
