"""Class names of the data sets that released detectors and segmenters were trained on.

The order is that of the labels. COCO's raw ids have gaps (1 to 90 for the 80 things); annotation files are sorted by
id, so label i of any COCO file is the i-th name here.
"""

CLASSES_1K = 1000
"""Of ImageNet-1K."""
CLASSES_22K = 21842
"""Of the official ImageNet-22K heads, in the order of the official label map."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.replace("\n", " ").split(","))


COCO_CLASSES = _names("""
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier,
toothbrush
""")
"""The 80 things of COCO."""

_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)

COCO_IDS = tuple(number for number in range(1, 91) if number not in _COCO_GAPS)
"""The raw id of each of `COCO_CLASSES`."""

COCO_RAW_CLASSES = tuple(
    COCO_CLASSES[COCO_IDS.index(number)] if number in COCO_IDS else f"unused {number}" for number in range(91)
)
"""Names for a network of 91 classes whose labels are raw ids, as the released DINO's; those it never learned are
called "unused 0", "unused 12" and so on."""

_COCO_STUFF = _names("""
banner, blanket, bridge, cardboard, counter, curtain, door-stuff, floor-wood, flower, fruit, gravel, house, light,
mirror-stuff, net, pillow, platform, playingfield, railroad, river, road, roof, sand, sea, shelf, snow, stairs, tent,
towel, wall-brick, wall-stone, wall-tile, wall-wood, water-other, window-blind, window-other, tree-merged, fence-merged,
ceiling-merged, sky-other-merged, cabinet-merged, table-merged, floor-other-merged, pavement-merged, mountain-merged,
grass-merged, dirt-merged, paper-merged, food-other-merged, building-other-merged, rock-merged, wall-other-merged,
rug-merged
""")

COCO_PANOPTIC_CLASSES = COCO_CLASSES + _COCO_STUFF
"""The 80 things and 53 kinds of stuff of COCO's panoptic task."""

COCO_PANOPTIC_THINGS = (True,) * len(COCO_CLASSES) + (False,) * len(_COCO_STUFF)
"""Whether each of `COCO_PANOPTIC_CLASSES` is a thing."""

ADE20K_CLASSES = _names("""
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, table,
mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat,
fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter,
sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop,
stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower,
chandelier, awning, streetlight, booth, television receiver, airplane, dirt track, apparel, pole, land, bannister,
escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything,
swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name,
microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
""")
"""The 150 classes of ADE20K's scene parsing benchmark; in its PNG files class i has the id i + 1, and 0 is none."""

CITYSCAPES_CLASSES = _names("""
road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, rider, car,
truck, bus, train, motorcycle, bicycle
""")
"""The 19 classes that Cityscapes scores."""

CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The id of each of `CITYSCAPES_CLASSES` in the files *_labelIds.png."""
