"""The sizes that annotations say of images, compared with the heads of the files; and images that EXIF turns.

A camera may keep an image lying and note in EXIF how to turn it. `load_image` turns it, as every viewer does, but some
tools that annotate do not: they say the size of the bitmap as it lies, and mean its pixels. Where a size tells so, the
annotations are turned with the image (`structures.turn_boxes`, `turn_pixels`). A square, or half a turn, tells nothing
by itself: it is taken as the others of its data set are.

Heads are read of all files up to `LOOK_AT_ALL`, else of some; of all where one of these is not as it should be.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from focalnet.data.problems import Problems, some, whole
from focalnet.inputs.image import Head, head_of

Size = tuple[int, int]
"""(height, width)."""

LOOK_AT_ALL = 20_000
"""Most files whose heads are all read."""
SAMPLE = 2_000
"""How many are read of more."""


class Fit(NamedTuple):
    """An image whose file agrees with its annotations.

    Attributes:
        size: (height, width) of the bitmap that the annotations mean.
        orientation: EXIF's, by which the annotations are still to be turned; 1 where they are upright.
    """

    size: Size
    orientation: int = 1

    @property
    def upright(self) -> Size:
        """(height, width) of the image as it is read."""
        return Head(self.size, self.orientation).upright


def read_size(height: Any, width: Any) -> Size | None:
    """(height, width) out of what JSON says, numbers in any spelling; None where these are no sizes."""
    size = whole(height), whole(width)
    return (size[0], size[1]) if size[0] and size[1] and min(size[0], size[1]) > 0 else None


def fit_sizes(
    files: Sequence[str],
    recorded: Sequence[Size | None],
    problems: Problems,
    *,
    reach: Callable[[int], tuple[float, float] | None] = lambda index: None,
    kind: str = "images of another size than their annotations say, left out",
    examples: Sequence[str] | None = None,
) -> list[Fit | None]:
    """Compare sizes with files.

    Args:
        files: images that are there.
        recorded: what the annotations say, or the size of a mask; None where they say nothing: the file counts then.
        problems: takes in what does not fit, as `kind`, and how many images are turned.
        reach: how far down and to the right the annotations of an image reach, where known. Some tools write the size
            of the bitmap as it lies, but annotate the image upright: their boxes leave the one and fit the other.
        kind: what to call what does not fit.
        examples: what to name instead of the files then.

    Returns:
        for each file its `Fit`, None where it is to be left out. A file that cannot be read is met when it is read.
    """
    heads = _heads(files, recorded)
    lying = upright = False
    tells_upright = False
    for index, (head, said) in enumerate(zip(heads, recorded, strict=True)):
        if head is None or said is None or head.size == head.upright:
            continue
        lying |= said == head.size
        upright |= said == head.upright
        tells_upright |= said == head.size and _leaves(reach(index), head.size)
    fits: list[Fit | None] = []
    for index, (file, head, said) in enumerate(zip(files, heads, recorded, strict=True)):
        if head is None:
            if said is None:
                problems.add("images without a size that cannot be read, left out", file, lost="images")
            fits.append(said and Fit(said))
        elif said is None or (said == head.upright and (said != head.size or upright or not lying)):
            fits.append(Fit(head.upright))
        elif said != head.size:
            name = f"{examples[index] if examples else file}, {said[1]} x {said[0]}"
            problems.add(kind, f"{name} not {head.upright[1]} x {head.upright[0]}", lost="images")
            fits.append(None)
        elif tells_upright:
            if head.orientation > 1:
                problems.note("images turned by EXIF whose sizes, but not boxes, are those before it", file)
            fits.append(Fit(head.upright))
        else:
            if head.orientation > 1:
                problems.note("images turned by EXIF, annotated as it is stored: turned with the annotations", file)
            fits.append(Fit(head.size, head.orientation))
    return fits


def _leaves(reach: tuple[float, float] | None, size: Size) -> bool:
    """Whether annotations reach out of a bitmap by more than a pixel, but not of it turned."""
    if reach is None:
        return False
    (down, right), (height, width) = reach, size
    return (down > height + 1 or right > width + 1) and down <= width + 1 and right <= height + 1


def _heads(files: Sequence[str], recorded: Sequence[Size | None]) -> list[Head | None]:
    """The heads of all files; those not looked at are taken as recorded."""
    if len(files) > LOOK_AT_ALL:
        places = some(range(len(files)), SAMPLE)
        if all((head := head_of(files[i])) is None or head == Head(recorded[i] or (0, 0), 1) for i in places):
            return [Head(said, 1) if said else head_of(file) for file, said in zip(files, recorded, strict=True)]
    return [head_of(file) for file in files]
