"""Plots of what a data set holds: each function gives the bytes of a PNG file, from counts and sizes."""

from collections.abc import Mapping, Sequence

from focalnet.visualize import style

MOST_BARS = 60
"""Classes up to which each has a bar."""


def class_bars(names: Sequence[str], counts: Mapping[str, Sequence[int]], unit: str) -> bytes:
    """How often each class occurs in each split, as bars beside each other, the commonest class first.

    Args:
        names: K classes; of more than 60 the commonest and the rarest 30 are shown.
        counts: split -> K numbers.
        unit: what is counted.
    """
    first = next(iter(counts.values()))
    order = sorted(range(len(names)), key=lambda index: -first[index])
    title = ""
    if len(order) > MOST_BARS:
        title = f"the {MOST_BARS // 2} commonest and the {MOST_BARS // 2} rarest of {len(names)} classes"
        order = [*order[: MOST_BARS // 2], *order[-MOST_BARS // 2 :]]
    shown = [style.plain(style.short(names[index], 22)) for index in order]
    figure = style.figure(max(4.0, 0.24 * len(shown) * len(counts) ** 0.5 + 1.2), 3.0 + 0.06 * max(map(len, shown)))
    axes = figure.subplots()
    width = 0.8 / len(counts)
    for place, (split, values) in enumerate(counts.items()):
        left = [index + (place - (len(counts) - 1) / 2) * width for index in range(len(shown))]
        axes.bar(left, [values[index] for index in order], width, label=split)
    axes.set_xticks(range(len(shown)), shown, rotation=90, fontsize=9)
    axes.set_ylabel(unit)
    axes.set_title(title, fontsize=11, loc="right")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(counts))
    axes.spines[["top", "right"]].set_visible(False)
    return style.png(figure)


def size_plot(sizes: Mapping[str, Sequence[tuple[int, int]]]) -> bytes:
    """Width and height of images, a dot for each size, the larger the more images have it.

    Args:
        sizes: split -> (width, height) of its images.
    """
    figure = style.figure(4.6, 4.2)
    axes = figure.subplots()
    most = max((side for pairs in sizes.values() for pair in pairs for side in pair), default=1)
    for split, pairs in sizes.items():
        counts: dict[tuple[int, int], int] = {}
        for pair in pairs:
            counts[pair] = counts.get(pair, 0) + 1
        if counts:
            area = [12 + 160 * (count / len(pairs)) for count in counts.values()]
            widths, heights = zip(*counts, strict=True)
            axes.scatter(widths, heights, area, alpha=0.5, label=split, linewidths=0)
    axes.plot([0, most], [0, most], color="gray", linewidth=0.8, linestyle=":")
    axes.set(xlabel="width in pixels", ylabel="height in pixels", xlim=(0, 1.08 * most), ylim=(0, 1.08 * most))
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    return style.png(figure)
