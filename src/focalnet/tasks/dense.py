"""What detection and segmentation share: images of any size with objects or a label per pixel.

Images are seen whole (`Preprocessing.long_side`). A batch of several sizes is padded on the right and at the bottom;
the heads ignore the padding, but FocalNet's global context is a mean over the padded map. Training takes landscape
and portrait images in batches of their own; measuring takes one image at a time unless all have one size, so that
the figures do not depend on what else is in a batch.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from focalnet import inputs
from focalnet.data import Datasets, DenseSample, open_data, open_evaluation
from focalnet.data.base import SplitName
from focalnet.data.transforms.detection import (
    AUGMENTATIONS,
    collate_dense,
    eval_dense_transform,
    train_dense_transform,
)
from focalnet.errors import OtherModelError, UserError
from focalnet.inputs.image import Signal, pixels_of
from focalnet.models.create import create_model
from focalnet.models.loading import load
from focalnet.models.registry import families, get_family, parse_name
from focalnet.tasks.base import Batch, ImageTask, MapDataset, Network, Section, Shot
from focalnet.tasks.figures import class_names, explained
from focalnet.tasks.options import DenseOptions, check_task
from focalnet.visualize.draw import side_by_side
from focalnet.weights.spec import ModelSpec

FEW = 24
"""Classes up to which their table is shown at once."""
SHOWN = 12
"""Images in a mosaic of the report."""
PIXELS = 2**20
"""Most pixels of a forward pass that predicts several images."""


@dataclass(frozen=True, kw_only=True)
class DenseTask(DenseOptions, ImageTask):
    """The parts of the tasks on whole images.

    Class attributes:
        longest: with `image_size`, the longer side at most, as a multiple of it; without, as the head has it.
    """

    longest: ClassVar[int | None] = None

    def datasets(self, seed: int) -> Datasets:
        wanted = parse_name(self.model)
        check_task(self.name, self.model)
        masks = learns_masks(wanted.head)
        with self.telling_task():
            data = open_data(
                self.kind, self.data, val_fraction=self.val_fraction, seed=seed, on_bad_image=self.on_bad_image,
                on_bad_annotation=self.on_bad_annotation, masks=masks, **self.data_options(),
            )  # fmt: skip
        self.check_num_classes(data, "look at the data's list of classes")
        if masks and not getattr(data.train, "masked", True):
            others = [family for family in families(task=self.name) if not learns_masks(family.name)]
            what = f"{self.data} has boxes and no masks, from which {self.model} learns"
            if not others:
                raise UserError(f"{what}.")
            other = f"{others[0].name}_{wanted.variant}"
            raise OtherModelError(f"{what}; take --model {other}, which learns from boxes.", other)
        return data

    def data_options(self) -> dict[str, Any]:
        """What else this task asks of its data, see `data.base.Request`."""
        return {}

    def evaluation_data(self, spec: ModelSpec, split: SplitName | None = None) -> MapDataset:
        return open_evaluation(
            self.kind, self.data, spec.classes, spec.num_classes, on_bad_image=self.on_bad_image,
            on_bad_annotation=self.on_bad_annotation, masks=learns_masks(spec.head), split=split, **self.data_options(),
        )  # fmt: skip

    def groups(self, dataset: Any) -> Sequence[int] | None:
        return None if dataset.sizes is None else [int(width >= height) for height, width in dataset.sizes]

    def eval_batch_size(self, spec: ModelSpec, dataset: Any, wish: int) -> int:
        if dataset.sizes is None or len(sizes := set(dataset.sizes)) != 1:
            return 1
        return min(wish, self.most_alike((spec.preprocessing.channels, *spec.preprocessing.whole_size(*sizes))))

    def build_model(self, data: Datasets) -> Network:
        overrides = self.overrides()
        model = create_model(
            self.model, weights=self.weights, classes=data.classes, recompute=self.recompute, **overrides,
            **self.head_options(),
        )  # fmt: skip
        ids = getattr(data.train, "category_ids", None)
        model.spec = self.seen(model.spec, data).replace(things=data.things, category_ids=ids, task=self.name)
        self.check_image_size(model)
        return model

    def seen(self, spec: ModelSpec, data: Datasets) -> ModelSpec:
        how, long_side = spec.preprocessing, None
        if isinstance(self.image_size, tuple):
            long_side = max(self.image_size)
        elif self.image_size is not None:
            long_side = int((self.longest or how.long_side / min(how.size)) * self.image_size)
        return self.fit_input(spec, data, input_size=self.image_size, long_side=long_side)

    def head_options(self) -> dict[str, Any]:
        """The options of the head that this task sets."""
        return {"num_queries": self.num_queries} if self.num_queries and self.head_is_new("num_queries") else {}

    def head_is_new(self, option: str) -> bool:
        """Whether the head has `option`, and the weights are none of it."""
        wanted = parse_name(self.model)
        if option not in get_family(wanted.head).options():
            return False
        return self.weights is None or load(self.weights, wanted.variant, head=wanted.head).spec.head != wanted.head

    def example(self, spec: ModelSpec, sample: DenseSample, *, train: bool) -> dict[str, Any]:
        transform = _train_transform(spec.preprocessing, self.augment) if train else _eval_transform(spec.preprocessing)
        image, target = transform(sample)
        example = {"image": image, "target": target}
        return example if train else {**example, "truth": self.truth(sample)}

    def augmented(self, spec: ModelSpec, sample: DenseSample) -> DenseSample:
        example = self.example(spec, sample, train=True)
        target, none = example["target"], torch.zeros(len(example["target"]["labels"]))
        return replace(
            sample, image=spec.preprocessing.restore(example["image"]), boxes=target["boxes"], labels=target["labels"],
            masks=target.get("masks"), outlined=target.get("outlined"), semantic=target.get("semantic"), area=none,
            crowd=none.bool(),
        )  # fmt: skip

    def truth(self, sample: DenseSample) -> dict[str, Any]:
        """What is measured against: the annotations in pixels of the original image, and its `size` (H, W)."""
        return {
            "image_id": sample.image_id,
            "orientation": sample.orientation,
            "category_ids": sample.category_ids,
            "written_as": sample.written_as,
            "size": (sample.image.height, sample.image.width),
            "boxes": sample.boxes,
            "labels": sample.labels,
            "masks": sample.masks,
            "outlined": sample.outlined,
            "crowd": sample.crowd,
            "area": sample.area,
            "semantic": sample.semantic,
        }

    def collate(self, spec: ModelSpec, examples: Sequence[dict[str, Any]], *, train: bool) -> Batch:
        batch = collate_dense([(example["image"], example["target"]) for example in examples])
        return batch if train else {**batch, "truth": [example["truth"] for example in examples]}

    def loss(self, model: Network, batch: Batch) -> Mapping[str, Tensor]:
        return model.loss(batch["images"], self.targets(batch), batch["sizes"])

    def own_loss(self, loss: Callable[..., Any], model: Network, batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": loss(model(batch["images"], batch["sizes"]), self.targets(batch))}

    def targets(self, batch: Batch) -> Any:
        """The truth of a batch as the model takes it."""
        return batch["targets"]

    def prepare(self, spec: ModelSpec, signal: Any) -> Tensor:
        """The whole image, resized: (C, H, W), uint8."""
        pixels = pixels_of(signal)
        return spec.preprocessing.resize_to(pixels, spec.preprocessing.whole_size((pixels.shape[1], pixels.shape[2])))

    def floats(self, spec: ModelSpec, batch: Tensor) -> Tensor:
        return spec.preprocessing.normalize(batch)

    def most_alike(self, shape: Sequence[int]) -> int:
        return max(1, PIXELS // (shape[1] * shape[2]))

    def predict_batch(self, model: Network, batch: Tensor, signals: Sequence[Signal]) -> list[Any]:
        sizes = torch.tensor([batch.shape[2:]] * len(batch), device=batch.device)
        return self.predict_images(model, batch, sizes, [(image.height, image.width) for image in signals])

    @abstractmethod
    def predict_images(
        self, model: Network, images: Tensor, sizes: Tensor, originals: Sequence[tuple[int, int]]
    ) -> list[Any]:
        """The predictions for a batch without padding.

        Args:
            model: the network.
            images: (B, 3, H, W), normalized.
            sizes: (B, 2), H and W of each.
            originals: height and width of each image before it was resized.
        """

    def render(self, model: Network, dataset: MapDataset, details: Mapping[str, Any]) -> list[Section]:
        step = max(1, len(dataset) // SHOWN)
        samples = [dataset[index] for index in range(0, len(dataset), step)[:SHOWN]]
        return [*self.show(model, samples, dataset, details), explained(model, samples[0])]

    def beside_truth(
        self, model: Network, samples: Sequence[DenseSample], captions: Sequence[str] | None = None
    ) -> list[Shot]:
        """What is known of each sample, and what a network says of it, side by side; by default in words below."""
        names = class_names(model.spec)
        predictions = self.predict(model, [sample.image for sample in samples])
        captions = captions or [prediction.summary() for prediction in predictions]
        return [
            Shot(
                side_by_side(self.draw_truth(sample, names), prediction.draw(sample.image), ("truth", "predicted")),
                caption,
                sample.path,
            )
            for sample, prediction, caption in zip(samples, predictions, captions, strict=True)
        ]

    @abstractmethod
    def show(
        self, model: Network, samples: Sequence[DenseSample], dataset: MapDataset, details: Mapping[str, Any]
    ) -> list[Section]:
        """Figures, and predictions on some images beside their truth.

        Args:
            model, dataset, details: as for `render`.
            samples: the images.
        """


def learns_masks(head: str) -> bool:
    """Whether networks with this `ModelSpec.head` learn from the outlines of objects."""
    return get_family(head).learns == "masks"


def bare_sample(image: Signal) -> DenseSample:
    """An image of which nothing is known."""
    none = torch.zeros(0)
    return DenseSample(image, "", none.reshape(0, 4), none.long(), None, none.bool(), none, None, 0)


@cache
def _train_transform(preprocessing: inputs.Image, augment: str) -> Any:
    return train_dense_transform(preprocessing, AUGMENTATIONS[augment])


@cache
def _eval_transform(preprocessing: inputs.Image) -> Any:
    return eval_dense_transform(preprocessing)
