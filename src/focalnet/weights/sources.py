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
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from focalnet.errors import UserError
from focalnet.labels import published
from focalnet.variants import get_variant
from focalnet.weights.adapt import CLASSES_1K
from focalnet.weights.architecture import infer_architecture, infer_variant, match_backbone
from focalnet.weights.dense import DenseLayout, find_layout, under
from focalnet.weights.files import READ_SUFFIXES, Checkpoint, in_a_sentence, read_checkpoint, whole
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
from focalnet.weights.spec import ModelSpec
from focalnet.weights.third_party import read_folder_config

logger = logging.getLogger(__name__)

SPEC_KEY = "focalnet"
"""Where a safetensors header carries a `ModelSpec` as JSON."""

_HUB_ID = re.compile(r"(?:hf[-_]hub:|https://huggingface\.co/)?(\w[\w.-]*/\w[\w.-]*)")
_FOLDER_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Located:
    """A weight file on this machine.

    Attributes:
        path: the file.
        spec: its network, where something beside the file tells it.
        entry: the released file that it is, of a detector.
    """

    path: Path
    spec: ModelSpec | None = None
    entry: WeightsEntry | None = None


@dataclass(frozen=True)
class Weights:
    """Weights ready to be adapted.

    Attributes:
        state_dict: in the official layout; of a detector or segmenter, under our names.
        spec: the network that they are of.
        use_postln: where the block norms stand, if something tells it; None if only the shapes were seen.
        trunk_prefix: what the backbone's names begin with.
        guessed: whether the class names of a detector or segmenter are only those that its number of classes suggests.
        told: whether the layout or a description of a detector or segmenter tells what no shape shows.
    """

    state_dict: dict[str, Tensor]
    spec: ModelSpec
    use_postln: bool | None
    backbone_prefix: str = ""
    guessed: bool = False
    told: bool = False

    def trunk(self) -> dict[str, Tensor]:
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
        return Located(path, read_folder_config(path.parent, path.parent.name) if described else None)
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
    _say_what_is_unsettled(entry.spec)
    return Located(path, entry.spec)


def _say_what_is_unsettled(spec: ModelSpec) -> None:
    if spec.variant in UNSETTLED:
        divided = spec.architecture.normalize_modulator
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
    has_config = (folder / "config.json").is_file()
    return Located(weights, read_folder_config(folder, origin) if has_config else None)


def load(weights: str | Path, variant: str | None = None, *, head: str = "classifier") -> Weights:
    """Find, read and rename weights.

    Args:
        weights: what the module's text lists.
        variant: the model's name, where it is known.
        head: what stands on the model's trunk.

    Raises:
        UserError: they are not found, damaged, no FocalNet's, or of an unknown variant and `variant` is not given.
    """
    located = resolve(weights, variant, head=head)
    checkpoint = read_checkpoint(located.path)
    with whole(located.path):
        return _understand(located, checkpoint, variant)


def _understand(located: Located, checkpoint: Checkpoint, variant: str | None) -> Weights:
    dense = find_layout(checkpoint.state_dict)
    if dense is not None:
        return _load_dense(dense, located, checkpoint, variant)
    told = stored_use_postln(checkpoint.state_dict)
    official = convert_state_dict(checkpoint.state_dict, to="official")
    spec = stored_spec(located, checkpoint)
    if spec is None:
        return Weights(official, _guess(official, located.path, variant), told)
    if told is not None and told != spec.architecture.use_postln:
        raise UserError(
            f"{located.path} has {'res-post-norm' if told else 'pre-norm'} blocks, but its description says otherwise; "
            f"build the model with use_postln={told} and give the file itself as weights=."
        )
    return Weights(official, spec, spec.architecture.use_postln)


def _load_dense(layout: DenseLayout, located: Located, checkpoint: Checkpoint, variant: str | None) -> Weights:
    weights = layout.read(checkpoint.state_dict)
    spec, guessed = describe_dense(layout, weights, located, checkpoint, variant)
    if spec is None:
        raise UserError(f"{located.path} fits no known variant; name the model, with what was changed.")
    told = layout.name != "focalnet" or stored_spec(located, checkpoint) is not None
    return Weights(weights, spec, spec.architecture.use_postln, layout.backbone_prefix, guessed=guessed, told=told)


def describe_dense(
    layout: DenseLayout,
    weights: Mapping[str, Tensor],
    located: Located,
    checkpoint: Checkpoint,
    variant: str | None = None,
) -> tuple[ModelSpec | None, bool]:
    """The network of a detector or segmenter, and whether its class names are guessed from their number.

    Args:
        layout: what the file's names follow.
        weights: under our names.
        located: where the file was found.
        checkpoint: what is in it.
        variant: of the backbone, where it is known.

    Returns:
        None in place of the network where its backbone is of no known variant and `variant` is not given.

    Raises:
        UserError: a part is missing.
    """
    spec = stored_spec(located, checkpoint)
    described = spec is not None and spec.head == layout.head
    if spec is not None and described and (spec.classes is not None or located.spec is not None):
        return spec, False
    if spec is None or not described:
        facts = layout.facts(weights)
        trunk = under(weights, layout.backbone_prefix)
        name = match_backbone(trunk) or variant
        if name is None:
            return None, False
        seen = infer_architecture(trunk)
        shapes = {field: getattr(seen, field) for field in ("focal_levels", "focal_windows", "focal_factor")}
        spec = ModelSpec(
            variant=name,
            architecture=get_variant(name).replace(**shapes, **facts.overrides),
            head=layout.head,
            head_options=facts.head_options,
            num_classes=facts.num_classes,
            preprocessing=facts.preprocessing,
            licence=located.entry.licence if located.entry else None,
            source=located.entry.url if located.entry else located.path.name,
        )
        _say_what_is_unsettled(spec)
    known = published(layout.head, spec.num_classes, spec.architecture.embed_dim)
    if described:
        known.pop("preprocessing", None)
    names = checkpoint.classes
    if names is not None and len(names) != spec.num_classes:
        logger.info("%s: %d names for %d classes, left out", located.path.name, len(names), spec.num_classes)
    elif names is not None:
        return spec.replace(**(known if names == known.get("classes") else {"classes": names})), False
    guessed = bool(known) and located.entry is None
    if guessed:
        logger.info(
            "%s: %d classes without names are taken for %s, …; classes= says otherwise",
            located.path.name, spec.num_classes, ", ".join(known["classes"][:3]),
        )  # fmt: skip
    return spec.replace(**known), guessed


def stored_spec(located: Located, checkpoint: Checkpoint) -> ModelSpec | None:
    """The `ModelSpec` that stands beside a file or travels in its metadata, or None."""
    if located.spec is not None:
        return located.spec
    text = checkpoint.metadata.get(SPEC_KEY)
    with in_a_sentence(f"the description in the file's metadata ({SPEC_KEY!r}) is damaged", "write it again"):
        return None if text is None else ModelSpec.from_dict(json.loads(text))


def _guess(official: Mapping[str, Tensor], path: Path, variant: str | None) -> ModelSpec:
    name = infer_variant(official)
    classes = official["head.weight"].shape[0] if "head.weight" in official else 0
    released = released_as(path.name)
    if released and released.head == "classifier" and (released.variant, released.num_classes) == (name, classes):
        _say_what_is_unsettled(released.spec)
        return released.spec
    name = name or variant
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
    _say_what_is_unsettled(spec)
    return spec
