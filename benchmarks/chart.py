"""Draw what `benchmarks/inference.py` measured: how many times as fast as timm, per model, mode and precision.

    python benchmarks/chart.py --out docs/images/inference.png

Reads the kept JSON lines. Where the same thing was measured more than once, the dot is the median of the `paired`
ratios of the runs, and the line through it spans the runs. Caption: commits, device, versions.
"""

import argparse
import json
import statistics
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results" / "inference.jsonl"
COLOURS = {"float32": "#4c72b0", "autocast": "#dd8452", "bfloat16": "#55a868"}


def read(path: Path, against: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [row for row in rows if row["against"] == against]


def group_of(row: dict[str, Any]) -> str:
    """The label of a line of the chart: everything but mode and precision."""
    height, width = row["size"] if isinstance(row["size"], list) else (row["size"], row["size"])
    kernels = f", kernels from {row['windows']}" if row.get("windows") else ""
    threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return f"{row['model'].removeprefix('focalnet_')}\n{height} x {width}{kernels}\nbatch {row['batch']}, {threads}"


def draw(rows: list[dict[str, Any]], against: str) -> Figure:
    groups = sorted({group_of(row) for row in rows}, key=lambda group: (group.split("\n")[1], group))
    modes = [mode for mode in ("inference", "training") if any(row["mode"] == mode for row in rows)]
    figure = Figure(figsize=(4.6 * len(modes) + 1.2, 0.75 * len(groups) + 1.8), layout="constrained")
    panels = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    for axes, mode in zip(panels, modes, strict=True):
        for place, group in enumerate(groups):
            for offset, (precision, color) in enumerate(COLOURS.items()):
                key = (group, mode, precision)
                runs = [row["paired"] for row in rows if (group_of(row), row["mode"], row["precision"]) == key]
                if not runs:
                    continue
                y, ratio = place + 0.24 * (offset - 1), statistics.median(runs)
                axes.plot([min(runs), max(runs)], [y, y], color=color, linewidth=2.5, alpha=0.5)
                axes.plot(ratio, y, "o", color=color, markersize=6)
                axes.annotate(
                    f"{ratio:.2f}", (max(runs), y), (7, 0), textcoords="offset points", va="center", fontsize=8
                )
        axes.axvline(1, color="0.3", linewidth=1)
        axes.set_title(mode, fontsize=11)
        axes.set_xlabel(f"time of {against} / our time; right of 1 we are faster", fontsize=9)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.16)
    panels[0].set_yticks(range(len(groups)), groups, fontsize=8)
    panels[0].set_ylim(len(groups) - 0.5, -0.5)  # room for the label of the last
    dots = [panels[0].plot([], [], "o", color=color, label=name)[0] for name, color in COLOURS.items()]
    figure.legend(handles=dots, loc="outside upper right", ncols=len(dots), frameon=False, fontsize=9)
    facts = {name: ", ".join(sorted({row[name] for row in rows})) for name in ("commit", "device", "torch")}
    facts["commit"] = ", ".join(sorted({row["commit"].removesuffix("+changes") for row in rows}))
    caption = f"commits {facts['commit']}; {facts['device']}; torch {facts['torch']}; eager, median of paired rounds"
    figure.supxlabel(textwrap.fill(caption, 150), fontsize=8, color="0.35")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--against", default="timm", choices=["timm", "transformers"])
    parser.add_argument("--out", type=Path, default=Path("docs/images/inference.png"))
    options = parser.parse_args()
    rows = read(options.results, options.against)
    if not rows:
        parser.error(f"{options.results} holds no row against {options.against}; run benchmarks/inference.py first")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw(rows, options.against).savefig(options.out, dpi=120)
    print(options.out)


if __name__ == "__main__":
    main()
