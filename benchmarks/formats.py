"""Which family of networks lives in which format: `python benchmarks/formats.py [FAMILY | FORMAT ...]`

A small network of each family, with heads drawn so that it finds something, is written in each format and compared with
what was written, as `focalnet export` does it. What is measured replaces its rows in results/formats.json, and the
table of docs/export.md is written anew. Formats whose packages are not installed keep their rows.
"""

import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from focalnet import create_backbone, create_model
from focalnet.errors import MissingExtraError, UserError
from focalnet.exporting import ENDINGS, FIXED, record_of
from focalnet.exporting.check import check
from focalnet.exporting.formats import WRITERS
from focalnet.exporting.tracing import trace, trace_step
from focalnet.models.registry import get_family

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "formats.json"
PAGE = HERE.parent / "docs" / "export.md"
TOLERANCE = 1e-3
"""Largest difference of a row, as a share of the largest output."""
SIDE = 64
"""Of the images."""
TINY = {"embed_dim": 8, "depths": (1, 1, 1, 1), "focal_levels": 1}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "classifier": ("minifocal_32", {"num_classes": 3, "depths": (1, 1, 1)}),
    "backbone": ("minifocal_128", {}),
    "mask_rcnn": ("mask_rcnn_minifocal_128", {"num_classes": 3, "proposals": 40}),
    "cascade_mask_rcnn": ("cascade_mask_rcnn_minifocal_128", {"num_classes": 3, "proposals": 40}),
    "atss": ("atss_minifocal_128", {"num_classes": 3}),
    "sparse_rcnn": ("sparse_rcnn_minifocal_128", {"num_classes": 3}),
    "dino": ("dino_minifocal_128", {"num_classes": 3}),
    "upernet": ("upernet_minifocal_128", {"num_classes": 3}),
    "mask2former": ("mask2former_minifocal_128", {"num_classes": 3}),
    "focal_unet": ("focal_unet_minifocal_128", {"num_classes": 3}),
    "focal_tsmp": ("focal_tsmp_minifocal_128", {"in_channels": 5, "depths": (1, 1, 1), "focal_windows": 3}),
    "sound": ("sound_minifocal_128", {"num_classes": 3}),
    "video_focalnet": ("video_focalnet_tiny", {"num_classes": 3}),
    "focalcodec": ("focalcodec_small", {}),
}
"""A network of each family: its name, and what is smaller or other than in that."""
STREAM: dict[str, Any] = {
    "encoder": {
        "dim": 32, "layers": 2, "heads": 4, "ffn_dim": 48, "conv_dims": [16] * 7, "buckets": 32, "max_distance": 40,
        "position_kernel": 16, "position_groups": 4, "window": 32,
    },
    "compressor": {"dims": [24, 16], "focal_window": 5, "focal_factor": 4, "window": 32},
    "decompressor": {"dims": [16, 24], "focal_window": 5, "focal_factor": 4, "window": 32, "lookahead": 3},
    "decoder": {"kind": "wavenext", "dim": 24, "layers": 2, "ffn_dim": 40, "hop": 480},
    "down": [1, 1],
    "up": [1, 1],
}  # fmt: skip
"""A narrow codec for streams."""
STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"focalcodec: {step}": NETWORKS["focalcodec"] for step in ("encode", "decode")},
    **{
        f"focalcodec: {step}_{place}": ("focalcodec_50hz_4k_causal", STREAM)
        for step in ("encode", "decode")
        for place in ("first", "next")
    },
}
"""Steps of networks that are files of their own."""
ROWS = {name: row for name, row in {**NETWORKS, **STEPS}.items() if f"{name}: encode" not in STEPS}
"""What is measured: where a network has steps, these."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was found.

    Attributes:
        family: of the network, and the step where it is one.
        format: of the file.
        free: what may have any length: "batch", "size".
        difference: the largest from the network, as a share of the largest output; None where there is no file.
        agree: predictions that are the same, and of how many; None where the family makes none.
        refused: why there is no file.
    """

    family: str
    format: str
    free: tuple[str, ...] = ()
    difference: float | None = None
    agree: tuple[int, int] | None = None
    refused: str | None = None


def network_of(family: str) -> Any:
    """A network of a family that tells its classes apart."""
    torch.manual_seed(0)
    name, arguments = ROWS[family]
    family = family.partition(":")[0]
    tiny = {} if get_family(family).networks else TINY
    create = create_backbone if family == "backbone" else create_model
    network: Any = create(name, **{**tiny, **arguments}).eval()
    how = network.spec.preprocessing
    if how.kind != "audio":
        sizes = ["input_size", *(["long_side"] if getattr(how, "long_side", None) else [])]
        network.spec = network.spec.replace(preprocessing=dataclasses.replace(how, **dict.fromkeys(sizes, SIDE)))
    parameters = dict(network.named_parameters())
    for name in [] if family == "backbone" else sorted(parameters.keys() & {*network.class_parameters()}):
        if name.endswith("weight") and not re.search("bbox_pred|fc_reg|mask_fcn_logits|conv_logits", name):
            nn.init.normal_(parameters[name], std=0.2)
    return network


def samples_of(network: Any) -> list[np.ndarray]:
    """Signals of noise that the network takes, six."""
    rng, how = np.random.default_rng(0), network.spec.preprocessing
    if how.kind == "audio":
        return [rng.normal(size=how.sample_rate).astype(np.float32) for _ in range(6)]
    frames = (how.frames,) if how.kind == "video" else ()
    return [rng.integers(0, 255, (*frames, SIDE, SIDE - 8 * n, 3), dtype=np.uint8) for n in range(6)]


def measure(family: str, formats: Sequence[str]) -> Iterator[Row]:
    """The rows of a family in these formats."""
    network, (head, _, step) = network_of(family), family.partition(": ")
    samples = samples_of(network) if get_family(head).tasks else []
    for kind in formats:
        try:
            # anew for each format, as a writer may change a program
            fixed = kind in FIXED
            traced = trace_step(network, step, fixed=fixed) if step else trace(network, fixed=fixed)
            record = record_of(traced)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"net{ENDINGS[kind]}"
                WRITERS[kind](traced.program, record, path)
                found = check(network, path, record, samples, TOLERANCE)
        except MissingExtraError:
            raise
        except UserError as error:
            yield Row(family=family, format=kind, refused=re.split(r" \(|;|: nothing", str(error))[0])
            continue
        free = ("batch", "size")[: min(len(record.free), 2)]
        yield Row(family=family, format=kind, free=free, difference=found.difference, agree=found.agree)


def read() -> list[Row]:
    """The rows that are kept."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    return [Row(**{**row, "free": tuple(row["free"]), "agree": row["agree"] and tuple(row["agree"])}) for row in rows]


def write(rows: Sequence[Row]) -> None:
    """Keep rows, and show them in the page."""
    order = [(family, kind) for family in ROWS for kind in WRITERS]
    rows = sorted(rows, key=lambda row: order.index((row.family, row.format)))
    lines = ",\n".join(json.dumps(dataclasses.asdict(row)) for row in rows)
    RESULTS.write_text(f"[\n{lines}\n]\n")
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text(before + START + table(rows) + END + rest.partition(END)[2])


START, END = "<!-- benchmarks/formats.py -->\n", "<!-- end -->\n"


def table(rows: Sequence[Row]) -> str:
    """The rows as a table, a line per family that was measured; what was not is empty."""
    lines = [f"| network | free | {' | '.join(ENDINGS[kind] for kind in WRITERS)} |", "|---" * (2 + len(WRITERS)) + "|"]
    for family in ROWS:
        found = {row.format: row for row in rows if row.family == family}
        if not found:
            continue
        free = max((row.free for row in found.values()), key=len, default=())
        cells = [cell(found.get(kind)) for kind in WRITERS]
        head, _, step = family.partition(": ")
        title = get_family(head).title or head
        lines.append(f"| {title}{f', `{step}`' if step else ''} | {', '.join(free)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(row: Row | None) -> str:
    """A file in a few letters."""
    if row is None:
        return ""
    if row.refused:
        return "no"
    agree = "" if row.agree is None else f", {row.agree[0]} of {row.agree[1]}"
    return f"{row.difference:.0e}{agree}"


def main(asked: Sequence[str], told: Callable[..., Any] = print) -> None:
    families = [family for family in ROWS if family in asked or not {*asked} & {*ROWS}]
    formats = [kind for kind in WRITERS if kind in asked or not {*asked} & {*WRITERS}]
    for family in families:
        for kind in formats if len(formats) == 1 else [formats]:
            try:
                for row in measure(family, [kind] if isinstance(kind, str) else kind):
                    told(row)
                    kept = [one for one in read() if (one.family, one.format) != (row.family, row.format)]
                    write([*kept, row])
            except MissingExtraError as error:
                told(error)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
