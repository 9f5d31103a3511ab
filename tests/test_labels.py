"""The class names of the published data sets."""

from focalnet import labels


def test_class_lists():
    assert [len(names) for names in (labels.COCO_CLASSES, labels.COCO_IDS, labels.COCO_RAW_CLASSES)] == [80, 80, 91]
    assert len(labels.COCO_PANOPTIC_CLASSES) == len(labels.COCO_PANOPTIC_THINGS) == 133
    assert sum(labels.COCO_PANOPTIC_THINGS) == 80
    assert (len(labels.ADE20K_CLASSES), len(labels.CITYSCAPES_CLASSES)) == (150, 19)
    for names in (labels.COCO_RAW_CLASSES, labels.COCO_PANOPTIC_CLASSES, labels.ADE20K_CLASSES):
        assert len(set(names)) == len(names)
    from torchvision.models._meta import _COCO_CATEGORIES  # the raw ids, as torchvision's detectors have them

    for number, name in zip(labels.COCO_IDS, labels.COCO_CLASSES, strict=True):
        assert labels.COCO_RAW_CLASSES[number] == _COCO_CATEGORIES[number] == name
