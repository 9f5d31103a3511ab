"""Every released FocalNet file, where it is today, and the facts that its network needs.

Three sources. `official`: the authors' `.pth` files. `timm` and `transformers`: the same weights, renamed. The rows
differ in how an image is prepared: the official evaluation crops 0.875 of a bicubic resize, timm 0.9 (1.0 at 384),
transformers 0.875 of a bilinear one.

**`normalize_modulator` of the fl4 files is not settled.** It divides the gated sum by L+1 and leaves no trace in the
weights. Official yaml, FocalNet-DINO, Relation-DETR and X-Decoder say yes for large_fl4; timm, transformers' script and
detrex run the same file without it. For xlarge_fl4 the official yaml is silent (so no), FocalNet-DINO and Relation-DETR
say yes. The default here is the official yaml: yes for large_fl4, no for xlarge_fl4, whatever the source of the file.
`create_model("focalnet_large_fl4", weights=..., normalize_modulator=False)` computes what timm computes.

The heads of the 22K files have 21842 rows in the order of the official label map: see `adapt`. `huge_fl4` has none.
"""

import contextlib
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args
from urllib.parse import urlsplit
from urllib.request import Request, getproxies, urlopen

from focalnet import inputs
from focalnet.errors import UserError, first_line, unknown
from focalnet.labels import CLASSES_1K, CLASSES_22K
from focalnet.variants import VARIANTS, get_variant
from focalnet.weights.spec import ModelSpec

Source = Literal["official", "timm", "transformers"]
ANSWER_SECONDS = 5
SOURCES: tuple[Source, ...] = get_args(Source)

UNSETTLED = ("focalnet_large_fl4", "focalnet_xlarge_fl4")
"""Variants of which the sources disagree about `normalize_modulator`."""

_RELEASE = "https://github.com/microsoft/FocalNet/releases/download/v1.0.0/"
_AZURE = "https://projects4jw.blob.core.windows.net/focalnet/release/classification/"
_AZURE_CLOSED = "the storage account behind it refuses public access since 2023-05-31, and no copy is known"


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """One released file."""

    name: str
    """The file's name for official files, the hub id for the others."""
    variant: str
    source: Source
    licence: str
    """As its host states it."""
    url: str
    repo: str | None = None
    """Hub id, where the file lies on the hub."""
    size: int | None
    """Bytes, to three digits, where known."""
    num_classes: int
    preprocessing: inputs.Image
    normalize_modulator: bool
    """Whether the network divides the modulator; see the module's text for fl4."""
    head: str = "classifier"
    unreachable: str | None = None
    """Why the file cannot be downloaded any more."""

    @property
    def filename(self) -> str:
        """Name of the file at its host."""
        return self.url.rsplit("/", 1)[1]

    @property
    def local_path(self) -> Path:
        """Where a copy that you fetched yourself is found: the `checkpoints` folder of torch.hub."""
        import torch

        unique = (
            self.name if self.name.endswith(".pth") else f"{self.name.replace('/', '--')}{Path(self.filename).suffix}"
        )
        return Path(torch.hub.get_dir()) / "checkpoints" / unique

    @property
    def spec(self) -> ModelSpec:
        """The network of the file."""
        return ModelSpec(
            variant=self.variant,
            architecture=get_variant(self.variant).replace(normalize_modulator=self.normalize_modulator),
            head=self.head,
            num_classes=self.num_classes,
            classes=imagenet_classes() if self.num_classes == CLASSES_1K else None,
            preprocessing=self.preprocessing,
            licence=self.licence,
            source=self.url,
        )


def _rows() -> list[WeightsEntry]:
    rows: list[WeightsEntry] = []

    def add(variant: str, name: str, source: Source, url: str, size: float | None, **facts) -> None:
        facts = {"num_classes": CLASSES_1K, "licence": "mit", "preprocessing": inputs.Image()} | facts
        facts["normalize_modulator"] = VARIANTS[variant].normalize_modulator
        size = None if size is None else int(size)
        rows.append(WeightsEntry(name=name, variant=variant, source=source, url=url, size=size, **facts))

    def hub(repo: str, filename: str) -> str:
        return f"https://huggingface.co/{repo}/resolve/main/{filename}"

    for size, megabytes in {"tiny": (114, 115), "small": (200, 202), "base": (353, 355)}.items():
        for field, mega in zip(("srf", "lrf"), megabytes, strict=True):
            variant = f"focalnet_{size}_{field}"
            add(variant, f"{variant}.pth", "official", f"{_RELEASE}{variant}.pth", mega * 1e6)
            repo = f"timm/{variant}.ms_in1k"
            add(variant, repo, "timm", hub(repo, "model.safetensors"), mega * 1e6, repo=repo,
                preprocessing=inputs.Image(crop_pct=0.9))  # fmt: skip
            repo = f"microsoft/focalnet-{size}" + ("-lrf" if field == "lrf" else "")
            add(variant, repo, "transformers", hub(repo, "pytorch_model.bin"), mega * 1e6, repo=repo,
                licence="apache-2.0", preprocessing=inputs.Image(interpolation="bilinear"))  # fmt: skip
    for size, mega in (("tiny", 23.5), ("small", 89.5), ("base", 349)):
        variant, name = f"focalnet_{size}_iso", f"focalnet_{size}_iso_16.pth"
        add(variant, name, "official", _AZURE + name, mega * 1e6, unreachable=_AZURE_CLOSED)
    gigabytes = {"large": (0.957, 0.957), "xlarge": (1.64, 1.64), "huge": (2.98, 2.75)}
    for size, both in gigabytes.items():
        pixels = 224 if size == "huge" else 384
        for levels, giga in zip(("fl3", "fl4"), both, strict=True):
            variant = f"focalnet_{size}_{levels}"
            classes = 0 if variant == "focalnet_huge_fl4" else CLASSES_22K
            name = f"focalnet_{size}_lrf_{pixels}" + ("_fl4.pth" if levels == "fl4" else ".pth")
            # The mirror of the huge files states no licence; the original repository's is MIT.
            repo = "xiuqhou/FocalNet" if size == "huge" else None
            add(variant, name, "official", hub(repo, name) if repo else _RELEASE + name, giga * 1e9, repo=repo,
                num_classes=classes, preprocessing=inputs.Image(input_size=pixels))  # fmt: skip
            repo = f"timm/{variant}.ms_in22k"
            add(variant, repo, "timm", hub(repo, "model.safetensors"), giga * 1e9, repo=repo, num_classes=classes,
                preprocessing=inputs.Image(input_size=pixels, crop_pct=0.9 if size == "huge" else 1.0))  # fmt: skip
    return rows


_KNOWN = {row.name: row for row in _rows()}
ENTRIES: Mapping[str, WeightsEntry] = MappingProxyType(_KNOWN)
"""Name -> released file: the classifiers', and those that families of networks made known."""


def register_files(rows: Iterable[WeightsEntry]) -> None:
    """Make released files of whole networks known, so that `weights=` finds them."""
    _KNOWN.update({row.name: row for row in rows})


def find(name: str, source: str = "official", *, head: str = "classifier") -> WeightsEntry:
    """The released file of a variant, or the one called `name`; upper and lower case are the same.

    Args:
        name: a variant ("focalnet_tiny_lrf"), a file ("focalnet_tiny_lrf.pth") or a hub id.
        source: "official", "timm" or "transformers"; ignored for a file or hub id.
        head: what stands on the trunk.

    Raises:
        UserError: no such source, variant or file.
    """
    if source.lower() not in SOURCES:
        raise unknown("source of weights", source, SOURCES)
    wanted = name.lower()
    for row in ENTRIES.values():
        if row.name.lower() == wanted:
            return row
    fitting = [row for row in ENTRIES.values() if row.variant == wanted and row.head == head]
    for row in fitting:
        if row.source == source.lower():
            return row
    if wanted not in VARIANTS:
        raise unknown("model", name, [*VARIANTS, *ENTRIES])
    if fitting:
        others = " and ".join(repr(row.source) for row in fitting)
        raise UserError(f"{wanted} has no {source} weights; there are some under {others}.")
    raise UserError(f"no weights of {wanted} were ever released; train it, or give a file of your own.")


def released_as(filename: str) -> WeightsEntry | None:
    """The released file with this name, or None."""
    return next((row for row in ENTRIES.values() if filename.lower() in (row.name, row.local_path.name)), None)


def default_preprocessing(variant: str) -> inputs.Image:
    """How images are prepared for a variant without weights."""
    if variant.startswith("minifocal_"):
        return inputs.Image(input_size=int(variant.rsplit("_", 1)[1]), crop_pct=1.0)
    for row in ENTRIES.values():
        if row.variant == variant and row.source == "official" and row.head == "classifier":
            return row.preprocessing
    return inputs.Image()


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1000 class names of ImageNet-1K in the order of the logits."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def download(entry: WeightsEntry) -> Path:
    """The file of `entry`, from the cache or the net.

    Hub files go through the hub's own cache, others into the `checkpoints` folder of torch.hub. Both show a bar (the
    hub's HF_HUB_DISABLE_PROGRESS_BARS turns it off) and resume what was cut off. A file that you put at
    `entry.local_path` yourself is taken without asking the net.

    Raises:
        UserError: no connection, or the file is gone; the message names the address and where to put a copy.
    """
    target = entry.local_path
    if target.is_file():
        return target
    if entry.unreachable:
        raise UserError(
            f"{entry.name} cannot be downloaded from {entry.url}: {entry.unreachable}; if you have the file, give its "
            f"path as weights= or put it at {target}."
        )
    try:
        if entry.repo:
            return _fetch_from_hub(entry.repo, entry.filename, newest=False)
        return _fetch_url(entry.url, target)
    except Exception as error:  # the hub, httpx, requests and sockets: each has its own
        size = f" ({entry.size / 1e6:.0f} MB)" if entry.size else ""
        raise UserError(
            f"{entry.name} could not be downloaded from {entry.url} ({first_line(error)}); check the connection, or "
            f"fetch the file{size} elsewhere and put it at {target}."
        ) from error


def download_folder(repo: str) -> Path:
    """The folder in the hub's cache with `config.json` and weights of a hub id.

    Raises:
        UserError: no connection, no such repository, or none of the files in it that hold weights.
    """
    from huggingface_hub.errors import EntryNotFoundError

    missing: Exception | None = None
    try:
        folder = _fetch_from_hub(repo, "config.json").parent
        for name in ("model.safetensors", "pytorch_model.bin"):
            try:
                _fetch_from_hub(repo, name)
                break
            except EntryNotFoundError as error:
                missing = error
        else:
            raise missing or FileNotFoundError
        with contextlib.suppress(EntryNotFoundError):
            _fetch_from_hub(repo, "preprocessor_config.json")
    except Exception as error:
        raise UserError(
            f"{repo} could not be downloaded from https://huggingface.co/{repo} ({first_line(error)}); check the "
            "name and the connection, or fetch config.json and model.safetensors elsewhere and give their folder."
        ) from error
    return folder


def is_reachable(entry: WeightsEntry) -> bool:
    """Whether the file of `entry` is here, or its host answers at once and has it."""
    if entry.unreachable or _offline(entry.url):
        return not entry.unreachable and entry.local_path.is_file()
    try:
        with urlopen(Request(entry.url, method="HEAD"), timeout=ANSWER_SECONDS):
            return True
    except (OSError, HTTPException):
        return entry.local_path.is_file()


def _offline(url: str) -> bool:
    """Whether the host has no address: said at once, where the clients would try again for half a minute."""
    if getproxies().get("https"):
        return False
    try:
        socket.getaddrinfo(urlsplit(url).hostname, None)
    except OSError:
        return True
    return False


def _fetch_from_hub(repo: str, filename: str, *, newest: bool = True) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    offline = _offline(constants.ENDPOINT)
    if offline or not newest:
        try:
            return Path(hf_hub_download(repo, filename, local_files_only=True))
        except LocalEntryNotFoundError:
            if offline:
                raise LocalEntryNotFoundError(f"no connection to {constants.ENDPOINT}") from None
    return Path(hf_hub_download(repo, filename))


def _fetch_url(url: str, target: Path) -> Path:
    from filelock import FileLock
    from huggingface_hub.file_download import http_get

    if _offline(url):
        raise ConnectionError(f"no connection to {urlsplit(url).hostname}")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    with FileLock(f"{target}.lock"):  # the processes of one machine fetch a file once
        if target.is_file():
            return target
        try:
            with open(partial, "ab") as file:
                http_get(url, file, resume_size=file.tell(), displayed_filename=target.name)
        except Exception as error:
            if (
                getattr(getattr(error, "response", None), "status_code", None) == 416
            ):  # longer than the file: start anew
                partial.unlink()
            raise
        partial.replace(target)
    return target
