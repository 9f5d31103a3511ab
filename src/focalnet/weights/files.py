"""Reading and writing weight files: `.pth`, `.pt`, `.bin` (torch.save) and `.safetensors`; reading detectron2's `.pkl`.

No code of a file runs. Training checkpoints carry more than tensors: the official ones a yacs `CfgNode`, others an
`argparse.Namespace` or numpy scalars. `pickles` and `torch_files` answer each such class with an inert stand-in:
nothing is imported, what the object held becomes plain dictionaries that nobody looks at. Arrays of numpy, which
detectron2 publishes, become tensors.

Wrappers are opened (`model`, `state_dict`, an EMA's `model_ema`), prefixes dropped (`module.`, `_orig_mod.`, and the
`vision.` that today's official code puts before every key). Where a file holds both, the average is taken, as
evaluation did.
"""

import logging
import math
import os
import pickle
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from focalnet.errors import UserError, first_line
from focalnet.reading import regular, shown
from focalnet.weights import pickles, torch_files
from focalnet.weights.torch_files import as_tensor, is_numbers

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""What is written."""
READ_SUFFIXES = (*SUFFIXES, ".pkl")
WRAPPERS = ("model_ema", "ema_model", "state_dict_ema", "model", "state_dict", "model_state_dict")
DEEPEST = 8
"""Most wrappers around the weights."""
MOST_SHARED = 16
"""Most names, on average, that stand for the same numbers; the heads of a DINO are seven."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PREFIXES = ("module.", "_orig_mod.", "vision.", "visual.")


IN_MEMORY = Path("the state dict")
"""What stands for the path of weights that are in memory."""


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
    if not path.exists():
        raise UserError(f"there is no weight file {path}; check the path.")
    size = regular(path, "give a weight file").st_size
    with _damage_said(path):
        if path.suffix == ".safetensors":
            content, metadata = _read_safetensors(path)
        else:
            content = pickles.load_arrays(path) if path.suffix == ".pkl" else torch_files.load(path)
            metadata = _strings(content)
        weights = _unwrap(content, path)
        if sum(tensor.nbytes for tensor in weights.values()) > MOST_SHARED * size + 2**20:
            raise UserError(f"{path} has the same numbers under very many names; save `model.state_dict()`.")
        return Checkpoint(weights, metadata, _classes(content))


def checkpoint_of(content: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint in what is in memory already: a state dict, alone or wrapped as files have it.

    Raises:
        UserError: it is none.
    """
    return Checkpoint(_unwrap(content, IN_MEMORY), _strings(content), _classes(content))


def read_content(path: Path) -> Any:
    """All that a file of `torch.save` holds, containers and tensors.

    Raises:
        UserError: it is missing, damaged, or no such file.
    """
    regular(path)
    with _damage_said(path):
        return torch_files.with_tensors(torch_files.load(path))


@contextmanager
def _damage_said(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no checkpoint of tensors, or a damaged one; save it again as a state dict."
        ) from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; ask for permission.") from error
    except Exception as error:  # every library has its own exception for a file that is cut off
        raise UserError(f"{path} is damaged or cut off ({first_line(error)}); copy or download it again.") from error


def amiss(weights: Mapping[str, Tensor]) -> str | None:
    """What keeps tensors from being the weights of a network, in words; None where they are.

    Numbers of other types than floating-point ones of 16 to 64 bits (a counter, a single whole number, may be one), and
    numbers that are none: what a training that diverged leaves.
    """
    kinds = [
        f"{name} ({str(tensor.dtype).removeprefix('torch.')})"
        for name, tensor in weights.items()
        if tensor.dtype not in FLOATS and (tensor.ndim or tensor.is_floating_point() or tensor.is_complex())
    ]
    broken = [
        name
        for name, tensor in weights.items()
        if tensor.dtype in FLOATS and tensor.numel() and not all(map(math.isfinite, map(float, tensor.aminmax())))
    ]
    for names, what in ((kinds, "no floating-point numbers of 16 to 64 bits"), (broken, "NaN or infinite numbers")):
        if names:
            more = ", …" if len(names) > 3 else ""
            return f"{len(names)} of {len(weights)} tensors hold {what}: {', '.join(names[:3])}{more}"
    return None


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


def checksum(model: nn.Module) -> str:
    """A checksum of the weights of a network."""
    total = 0
    for name, tensor in sorted(model.state_dict().items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        total = zlib.crc32(content.numpy().data, zlib.crc32(name.encode(), total))
    return f"{total:08x}"


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
    except (LookupError, ValueError, TypeError, RuntimeError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{what} ({first_line(error)}); {mend}.") from error


def whole(path: Path) -> AbstractContextManager[None]:
    """`in_a_sentence` for tensors that no network has."""
    return in_a_sentence(f"{path} does not hold the tensors of a whole network", "check where it comes from")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


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
            keys = ", ".join(shown(key).strip("'") for key in list(content)[:5]) or "nothing"
            raise UserError(
                f"{path} holds no weights: found {keys}; expected tensors, or one of {', '.join(WRAPPERS)}."
            )
        if len(wrappers) > 1:
            logger.info("%s: took %r, left %s", path.name, wrappers[0], ", ".join(map(repr, wrappers[1:])))
        content = content[wrappers[0]]
    weights = {str(key): as_tensor(value, f"{path}: {key}") for key, value in content.items() if key != "n_averaged"}
    if not weights:
        raise UserError(f"{path} holds no weights, only how many were averaged; save `model.state_dict()`.")
    for _ in range(DEEPEST):
        if not any(all(key.startswith(prefix) for key in weights) for prefix in PREFIXES):
            break
        weights = {key.split(".", 1)[1]: tensor for key, tensor in weights.items()}
    return weights
