"""Reading and writing weight files: `.pth`, `.pt`, `.bin` (torch.save) and `.safetensors`; reading detectron2's `.pkl`.

Files are read with `weights_only=True`, always, so no code of theirs runs. Training checkpoints carry more than
tensors: the official ones a yacs `CfgNode`, others an `argparse.Namespace` or numpy scalars. The names of such classes
are read off the file first, and each is answered with an inert stand-in: nothing is imported, what the object held
becomes plain dictionaries that nobody looks at. Arrays of numpy, which detectron2 publishes, become tensors.

Wrappers are opened (`model`, `state_dict`, an EMA's `model_ema`), prefixes dropped (`module.`, `_orig_mod.`, and the
`vision.` that today's official code puts before every key). Where a file holds both, the average is taken, as
evaluation did.
"""

import logging
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from focalnet.errors import UserError, first_line
from focalnet.weights import pickles
from focalnet.weights.pickles import as_tensor, is_numbers

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""What is written."""
READ_SUFFIXES = (*SUFFIXES, ".pkl")
WRAPPERS = ("model_ema", "ema_model", "state_dict_ema", "model", "state_dict")
DEEPEST = 8
"""Most wrappers around the weights."""
PREFIXES = ("module.", "_orig_mod.", "vision.", "visual.")


@dataclass(frozen=True)
class Checkpoint:
    """What a weight file holds.

    Attributes:
        state_dict: names -> tensors, in whatever layout the file has.
        metadata: strings that travel with them (the header of a safetensors file).
        classes: names of the classes, where mmdetection or mmsegmentation wrote them.
    """

    state_dict: dict[str, Tensor]
    metadata: dict[str, str]
    classes: tuple[str, ...] | None = None


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weight file, on the CPU, wrappers opened and prefixes dropped.

    Args:
        path: a file of `torch.save` or safetensors, or a pickle of detectron2.

    Raises:
        UserError: the file is missing, damaged, or holds no weights.
    """
    return read_checkpoint(path).state_dict


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Like `read_state_dict`, with the metadata."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the weight file in it.")
    if not path.is_file():
        raise UserError(f"there is no weight file {path}; check the path.")
    try:
        if path.suffix == ".safetensors":
            content, metadata = _read_safetensors(path)
        else:
            content = pickles.load_arrays(path) if path.suffix == ".pkl" else _read_torch(path)
            metadata = _strings(content)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no checkpoint of tensors, or a damaged one; save it again as a state dict."
        ) from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; ask for permission.") from error
    except Exception as error:  # every library has its own exception for a file that is cut off
        raise UserError(f"{path} is damaged or cut off ({first_line(error)}); copy or download it again.") from error
    return Checkpoint(_unwrap(content, path), metadata, _classes(content))


def write_state_dict(
    path: str | Path,
    state_dict: Mapping[str, Tensor],
    *,
    wrapper: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors under a temporary name, flush them to the disk and rename: `path` is never half a file.

    Args:
        path: the suffix chooses the format: `.safetensors`, or `.pth`, `.pt`, `.bin` for `torch.save`.
        state_dict: names -> tensors.
        wrapper: for `torch.save`, the key to put the tensors under; the official code reads `model`.
        metadata: strings to travel along; without a wrapper, `torch.save` has no place for them.

    Raises:
        UserError: another suffix, or the disk is full or read-only.
    """
    path = Path(path)
    check_suffix(path)
    tensors = apart(state_dict)
    with replacing(path) as temporary:
        if path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(tensors, temporary, metadata={**(metadata or {}), "format": "pt"})
        elif wrapper:
            torch.save({wrapper: tensors, **({"metadata": dict(metadata)} if metadata else {})}, temporary)
        else:
            torch.save(tensors, temporary)


def apart(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each in memory of its own: safetensors refuses two names for one (DINO's heads)."""
    tensors: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in state_dict.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if place in taken else tensor
        taken.add(place)
    return tensors


def check_suffix(path: Path) -> None:
    """Raises UserError unless the suffix is one that `write_state_dict` knows."""
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"{path} ends with {path.suffix or 'no suffix'!r}; give a name ending with {', '.join(SUFFIXES)}."
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well, and vanishes otherwise.

    Raises:
        UserError: the disk is full or read-only; an older file is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError | RuntimeError) or type(error).__name__ == "SafetensorError":
            reason = getattr(error, "strerror", None) or first_line(error)
            raise UserError(f"{path} could not be written ({reason}); check free space and permissions.") from error
        raise


@contextmanager
def in_a_sentence(what: str, mend: str) -> Iterator[None]:
    """A file may hold anything: what goes wrong while its content is understood becomes "what (reason); mend."

    Raises:
        UserError: something went wrong.
    """
    try:
        yield
    except UserError:
        raise
    except (LookupError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{what} ({first_line(error)}); {mend}.") from error


def whole(path: Path) -> AbstractContextManager[None]:
    """`in_a_sentence` for tensors that no network has."""
    return in_a_sentence(f"{path} does not hold the tensors of a whole network", "check where it comes from")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def _read_torch(path: Path) -> Any:
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # the format of torch before 1.6, whose names cannot be listed
        foreign = ["yacs.config.CfgNode", "argparse.Namespace"]
    stand_ins: Any = [(pickles.stand_in(name), name) for name in foreign]
    if foreign:
        logger.debug("%s: inert stand-ins for %s", path, ", ".join(sorted(foreign)))
    with torch.serialization.safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True)


def _strings(content: Any) -> dict[str, str]:
    metadata = content.get("metadata") if isinstance(content, Mapping) else None
    return {str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, Mapping) else {}


def _classes(content: Any) -> tuple[str, ...] | None:
    """`meta.CLASSES` of mmdetection and mmsegmentation until 2022, `meta.dataset_meta.classes` since."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping):
        return None
    since = meta.get("dataset_meta")
    fields = {**meta, **(since if isinstance(since, Mapping) else {})}
    names = fields.get("classes") or fields.get("CLASSES")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) or None


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(map(is_numbers, content.values()))


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    depth = 0
    while not _is_state_dict(content):
        depth += 1
        if not isinstance(content, Mapping):
            raise UserError(f"{path} holds a {type(content).__name__}, no state dict; save `model.state_dict()`.")
        wrappers = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not wrappers or depth > DEEPEST:
            keys = ", ".join(str(key) for key in list(content)[:5]) or "nothing"
            raise UserError(
                f"{path} holds no weights: found {keys}; expected tensors, or one of {', '.join(WRAPPERS)}."
            )
        if len(wrappers) > 1:
            logger.info("%s: took %r, left %s", path.name, wrappers[0], ", ".join(map(repr, wrappers[1:])))
        content = content[wrappers[0]]
    weights = {str(key): as_tensor(value) for key, value in content.items() if key != "n_averaged"}
    while any(all(key.startswith(prefix) for key in weights) for prefix in PREFIXES):
        weights = {key.split(".", 1)[1]: tensor for key, tensor in weights.items()}
    return weights
