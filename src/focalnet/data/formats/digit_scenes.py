"""Scenes of handwritten digits, painted when asked for: exact boxes, masks and labels per pixel, nothing to download.

Three to eight of scikit-learn's 8 x 8 digits (`digits.py`), enlarged smoothly to 16 to 48 pixels, turned by up to 25
degrees, in any color that stands out from the ground, lie over each other on a textured ground of 128 x 128 pixels.

    ground      a gradient, plus smooth noise of a random grain, plus fine noise
    digit       bicubic; its mask is where its opacity is at least one half
    overlap     later digits lie on top; a place that would leave less than 0.7 of a digit visible is drawn again
    truth       the visible part: masks do not overlap, boxes are tight around them

Scene i of a split depends on nothing but (split, i): every epoch sees the same scenes, and augmentation varies them.
Held-out scenes show the validation digits only, which no training scene has. A process paints a scene once and keeps
it (65 kB each).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from focalnet.data.base import DenseSample, Load, Openers, Request, Split
from focalnet.data.formats.digits import Digits, open_digits
from focalnet.inputs.image import Signal, load_image
from focalnet.structures import masks_to_boxes

TRAIN_SCENES = {"detection": 4000, "semantic": 12000, "panoptic": 6000}
VAL_SCENES = 200
SIDE = 128
LEAST, MOST = 3, 8
SMALLEST, LARGEST = 16.0, 48.0
TURN = 25.0
TRIES = 8
VISIBLE = 0.7
CONTRAST = 70
MARGIN = 2
"""Empty cells around the 8 x 8 image, into which the enlarged strokes fade."""

Painted = tuple[np.ndarray, np.ndarray, list[int]]
"""Pixels (side, side, 3), uint8; the object on top of each, -1 for none, (side, side), int8; the digits."""


@dataclass(frozen=True)
class DigitScenes:
    """Paints scenes; an entry is the number of the scene.

    Attributes:
        digits: (D, 8, 8), the digits to draw from.
        labels: (D,), 0 to 9.
        stream: 0 for training, 1 for held-out scenes.
        kind: what the truth is for.
        side: height and width in pixels.
        painted: the scenes read so far.
    """

    digits: np.ndarray
    labels: np.ndarray
    stream: int
    kind: str
    side: int = SIDE
    painted: dict[int, Painted] = field(default_factory=dict, repr=False, compare=False)

    def name(self, entry: int) -> str:
        return f"digit_scenes/{'val' if self.stream else 'train'}[{entry}]"

    def read(self, entry: int, load: Load = load_image) -> DenseSample:
        if entry not in self.painted:
            self.painted[entry] = self._paint(entry)
        pixels, owner, labels = self.painted[entry]
        return self._scene(entry, load(pixels), torch.from_numpy(owner.astype(np.int64)), torch.tensor(labels))

    def _paint(self, entry: int) -> Painted:
        rng = np.random.default_rng((self.stream, entry))
        pixels = paint_ground(rng, self.side)
        labels: list[int] = []
        owner = np.full((self.side, self.side), -1, np.int64)  # which object is on top
        areas, visible = np.zeros(0, int), np.zeros(0, int)
        for _ in range(rng.integers(LEAST, MOST + 1)):
            row = int(rng.integers(len(self.digits)))
            alpha = enlarge(rng, self.digits[row])
            mask = alpha >= 0.5
            for _ in range(TRIES):
                top, left = (int(rng.integers(self.side - size + 1)) for size in alpha.shape)
                spot = (slice(top, top + alpha.shape[0]), slice(left, left + alpha.shape[1]))
                below = owner[spot]
                covered = np.bincount(below[mask] + 1, minlength=len(areas) + 1)[1:]
                if (visible - covered >= VISIBLE * areas).all():
                    break
            else:
                continue
            below[mask] = len(labels)
            paint(rng, pixels[spot], alpha)
            labels.append(int(self.labels[row]))
            areas = np.append(areas, mask.sum())
            visible = np.append(visible - covered, areas[-1])
        return np.clip(pixels + 0.5, 0, 255).astype(np.uint8), owner.astype(np.int8), labels

    def _scene(self, entry: int, image: Signal, owner: torch.Tensor, labels: torch.Tensor) -> DenseSample:
        masks = owner == torch.arange(len(labels))[:, None, None]
        semantic = None
        if self.kind == "semantic":  # class 0 is the background
            semantic = torch.cat((torch.zeros(1), labels + 1)).to(torch.uint8)[owner + 1]
            masks, labels = None, labels[:0]
        elif self.kind == "panoptic":  # the last class is the ground
            labels = torch.cat((labels, torch.tensor([10])))
            masks = torch.cat((masks, (owner < 0)[None]))
            semantic = labels.to(torch.uint8)[owner]  # -1 is the last object, the ground
        return DenseSample(
            image=image,
            path=self.name(entry),
            boxes=torch.zeros(0, 4) if masks is None else masks_to_boxes(masks),
            labels=labels,
            masks=masks,
            crowd=torch.zeros(len(labels), dtype=torch.bool),
            area=torch.zeros(0) if masks is None else masks.sum((1, 2)).float(),
            semantic=semantic,
            image_id=entry,
        )


def find_digit_scenes(source: str, request: Request) -> Openers:
    """What opens both splits; see `open_digit_scenes`."""
    train, val = open_digit_scenes(request.kind)
    return Openers(lambda: train, lambda: val)


def open_digit_scenes(kind: str = "detection") -> tuple[Split, Split]:
    """The training split (`TRAIN_SCENES`) and the held-out split (200 scenes).

    Args:
        kind: "detection": ten classes with boxes and masks; "semantic": a label per pixel, "background" before the ten
            digits; "panoptic": ten things, and the stuff "ground" after them.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    classes = tuple(str(digit) for digit in range(10))
    things = (True,) * 10
    if kind == "semantic":
        classes, things = ("background", *classes), (False, *things)
    elif kind == "panoptic":
        classes, things = (*classes, "ground"), (*things, False)
    splits = []
    for stream, (half, count) in enumerate(zip(open_digits(), (TRAIN_SCENES[kind], VAL_SCENES), strict=True)):
        reader: Any = half.reader
        assert isinstance(reader, Digits)
        scenes = DigitScenes(
            reader.images[list(half.entries)], np.array([int(n) for n in half.names or ()]), stream, kind
        )
        splits.append(
            Split(
                reader=scenes,
                entries=range(count),
                classes=classes,
                things=things,
                sizes=[(SIDE, SIDE)] * count,
                used=frozenset(classes),
            )
        )
    return splits[0], splits[1]


def paint_ground(rng: np.random.Generator, side: int) -> np.ndarray:
    """(side, side, 3), float32, 0 to 255: a gradient with coarse and fine noise."""
    colors = rng.uniform(40, 215, (2, 2, 3))
    colors = colors.mean((0, 1)) + 0.5 * (colors - colors.mean((0, 1)))
    grain = int(rng.integers(4, 25))
    coarse = rng.normal(0, rng.uniform(4, 22), (grain, grain, 1)) + rng.normal(0, 5, (grain, grain, 3))
    ground = _stretch(colors, side, Image.Resampling.BILINEAR) + _stretch(coarse, side, Image.Resampling.BILINEAR)
    return ground + np.float32(rng.uniform(1, 8)) * rng.standard_normal((side, side, 1), np.float32)


def _stretch(values: np.ndarray, side: int, how: Image.Resampling) -> np.ndarray:
    layers = [Image.fromarray(np.ascontiguousarray(values[..., i], np.float32)) for i in range(values.shape[2])]
    return np.stack([np.asarray(layer.resize((side, side), how)) for layer in layers], 2)


def enlarge(rng: np.random.Generator, digit: np.ndarray) -> np.ndarray:
    """The opacity of a digit (8, 8), uint8, enlarged and turned: (h, w), float32, 0 to 1, cut to what is visible."""
    scale = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST)))) / 8
    angle = np.deg2rad(rng.uniform(-TURN, TURN))
    stretch = float(rng.uniform(0.85, 1.2))  # width over height
    cells = 8 + 2 * MARGIN
    size = int(np.ceil(scale * 8 * 1.5)) + 2
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    a, b, d, e = cos / stretch, sin / stretch, -sin, cos  # output pixel to input cell
    centre = size / 2
    shift = (cells / 2 - (a + b) * centre, cells / 2 - (d + e) * centre)
    padded = np.zeros((cells, cells), np.float32)
    padded[MARGIN:-MARGIN, MARGIN:-MARGIN] = digit
    image = Image.fromarray(padded)
    affine = (a, b, shift[0], d, e, shift[1])
    turned = image.transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    alpha = np.clip((np.asarray(turned) / 255 - 0.15) / 0.6, 0, 1)
    rows, columns = np.flatnonzero((alpha > 0).any(1)), np.flatnonzero((alpha > 0).any(0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def paint(rng: np.random.Generator, pixels: np.ndarray, alpha: np.ndarray) -> None:
    """Lay a digit of one color, with a little shading, over `pixels` (h, w, 3), in place."""
    ground = pixels.mean()
    colors = rng.uniform(0, 255, (16, 3)).astype(np.float32)
    colors[-1] = 0 if ground > 128 else 255  # where no other stands out
    color = colors[(np.abs(colors.mean(1) - ground) > CONTRAST).argmax()]
    shade = np.linspace(-1, 1, len(alpha), dtype=np.float32)[:, None, None] * np.float32(rng.uniform(-20, 20))
    opacity = (alpha * np.float32(rng.uniform(0.8, 1)))[..., None]
    pixels += opacity * (color + shade - pixels)
