"""A caller's own transform of dense samples: torchvision's keep boxes, masks and labels in step."""

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from focalnet.data.base import DenseSample, Sample
from focalnet.data.transforms.own import apply_transform
from focalnet.errors import UserError
from focalnet.inputs import Image as ImageInput

READ = ImageInput().read


def sample():
    masks = torch.zeros(3, 20, 30, dtype=torch.bool)
    masks[0, 2:6, 1:4] = masks[1, 10:15, 20:30] = masks[2, 0:3, 0:3] = True
    boxes = torch.tensor([[1.0, 2, 4, 6], [20, 10, 30, 15], [0, 0, 3, 3]])
    return DenseSample(
        Image.new("RGB", (30, 20), "red"), "a.png", boxes, torch.tensor([4, 7, 1]), masks,
        crowd=torch.tensor([False, False, True]), area=torch.tensor([12.0, 50, 9]),
        semantic=torch.arange(600).reshape(20, 30).to(torch.uint8), image_id=3,
        outlined=torch.tensor([True, True, True]),
    )  # fmt: skip


def test_a_flip_of_torchvision_keeps_all_in_step():
    given = sample()
    flipped = apply_transform(given, v2.RandomHorizontalFlip(1.0), READ)
    assert flipped.boxes.tolist() == [[26, 2, 29, 6], [0, 10, 10, 15]], "the crowd is left out, as in training"
    assert flipped.labels.tolist() == [4, 7]
    assert torch.equal(flipped.masks, given.masks[:2].flip(2))
    assert torch.equal(flipped.semantic, given.semantic.flip(1))
    assert type(flipped.masks) is type(flipped.boxes) is torch.Tensor
    assert (flipped.outlined.tolist(), flipped.crowd.tolist()) == ([True, True], [False, False])
    assert flipped.area.tolist() == [12, 50]


def test_objects_that_a_crop_removes_are_gone():
    crop = v2.Compose([v2.Lambda(lambda x: v2.functional.crop(x, 0, 0, 8, 8)), v2.SanitizeBoundingBoxes()])
    cut = apply_transform(sample(), crop, READ)
    assert (cut.image.size, cut.labels.tolist(), tuple(cut.masks.shape)) == ((8, 8), [4], (1, 8, 8))


@pytest.mark.parametrize(
    ("transform", "sentence"),
    [
        (lambda image, target: image, "the transform gives Image; wanted are an image and its target, with boxes, lab"),
        (lambda image, target: (image, {"boxes": target["boxes"]}), "wanted are an image and its target"),
        (lambda image, target: (image, target | {"labels": target["labels"][:1]}), "2 boxes, 1 labels, 2 masks for an"),
        (lambda image, target: (image.resize((9, 9)), target), "for an image of 9x9; they must keep in step"),
    ],
)
def test_what_does_not_fit_together_is_refused(transform, sentence):
    with pytest.raises(UserError) as error:
        apply_transform(sample(), transform, READ)
    assert sentence in str(error.value)


def test_an_image_may_come_back_as_a_tensor():
    given = Sample(Image.new("RGB", (8, 6), "red"), 1, "a.png")
    for transform in (v2.PILToTensor(), v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])):
        signal = apply_transform(given, transform, READ).signal
        assert (signal.size, signal.getpixel((0, 0))) == ((8, 6), (255, 0, 0))
