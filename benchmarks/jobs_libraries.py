"""One job of `jobs.py`, done once with one library in this process: python jobs_libraries.py JOB LIBRARY OPTIONS.

OPTIONS is JSON. The last line printed is JSON too: samples, seconds of the whole job after the imports, seconds of its
loop where that is known, and answers to compare.
"""

import contextlib
import dataclasses
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch

NETWORK = "focalnet_tiny_lrf"
DETECTOR = f"mask_rcnn_{NETWORK}"


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jpg"))


def prepare(options: SimpleNamespace) -> None:
    """The models that are to predict and to evaluate, with random weights, as folders."""
    import focalnet

    torch.manual_seed(0)
    for job, name, size in (
        ("predict", NETWORK, {"input_size": options.side}),
        ("evaluate", DETECTOR, {"input_size": options.scene, "long_side": round(options.scene * 1333 / 800)}),
    ):
        if job not in options.jobs:
            continue
        model = focalnet.create_model(name, **({"classes": options.things} if job == "evaluate" else {}))
        model.spec = model.spec.replace(preprocessing=dataclasses.replace(model.spec.preprocessing, **size))
        focalnet.save_pretrained(model, Path(options.folder, job))


def finetune_focalnet(options: SimpleNamespace) -> dict[str, Any]:
    """One epoch by the command; the run also writes its checkpoints and its report."""
    from focalnet.cli import main

    run = Path(options.folder, f"run{time.time_ns()}")
    words = f"--epochs 1 --warmup-epochs 0 --lr 1e-4 --drop-path 0 --augment light --precision fp32 --model {NETWORK}"
    sizes = f"--batch-size {options.batch} --workers {options.workers} --image-size {options.side} --weights None"
    with contextlib.redirect_stdout(sys.stderr):
        main(["train", "--data", f"{options.folder}/images", "--out", str(run), *words.split(), *sizes.split()])
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    steps = len(files(Path(options.folder, "images/train"))) // options.batch
    return {"samples": steps * options.batch, "loop": steps * options.batch / row["samples_per_second"]}


def finetune_timm(options: SimpleNamespace) -> dict[str, Any]:
    """One epoch as timm's train.py does it: its data, loader, optimizer, schedule, loss, validation and checkpoint."""
    import timm
    from timm.data import create_dataset, create_loader, resolve_data_config
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import AverageMeter, CheckpointSaver, accuracy, dispatch_clip_grad

    device = torch.device("cpu")
    images = f"{options.folder}/images"
    classes = len(list(Path(images, "train").iterdir()))
    model = timm.create_model(NETWORK, num_classes=classes, drop_path_rate=0.0)
    data = resolve_data_config({"input_size": (3, options.side, options.side)}, model=model)
    common = {"input_size": data["input_size"], "batch_size": options.batch, "interpolation": "bicubic",
              "num_workers": options.workers, "device": device, "persistent_workers": options.workers > 0,
              "mean": data["mean"], "std": data["std"]}  # fmt: skip
    train = create_loader(
        create_dataset("", root=images, split="train", is_training=True, batch_size=options.batch),
        is_training=True, scale=(0.35, 1.0), color_jitter=0.2, **common,
    )  # fmt: skip
    val = create_loader(
        create_dataset("", root=images, split="val", is_training=False, batch_size=options.batch),
        crop_pct=0.875, **common,
    )  # fmt: skip
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-4, weight_decay=0.05)
    schedule, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=1, min_lr=1e-6, step_on_epochs=False, updates_per_epoch=len(train)
    )
    criterion = LabelSmoothingCrossEntropy(0.1)
    run = Path(options.folder, f"timm{time.time_ns()}")
    run.mkdir()
    saver = CheckpointSaver(model, optimizer, checkpoint_dir=str(run), recovery_dir=str(run))
    losses, began = AverageMeter(), time.perf_counter()
    model.train()
    for update, (inputs, target) in enumerate(train, 1):
        loss = criterion(model(inputs), target)
        loss.backward()
        dispatch_clip_grad(model.parameters(), value=5.0, mode="norm")
        optimizer.step()
        optimizer.zero_grad()
        losses.update(loss.item(), inputs.size(0))
        schedule.step_update(num_updates=update, metric=losses.avg)
    loop = time.perf_counter() - began
    model.eval()
    top1 = AverageMeter()
    with torch.no_grad():
        for inputs, target in val:
            top1.update(accuracy(model(inputs), target, topk=(1,))[0].item(), inputs.size(0))
    saver.save_checkpoint(0, metric=top1.avg)
    return {"samples": len(train) * options.batch, "loop": loop}


def predict_focalnet(options: SimpleNamespace) -> dict[str, Any]:
    import focalnet

    predictor = focalnet.Predictor(Path(options.folder, "predict"))
    began = time.perf_counter()
    answers = [
        int(prediction.label.removeprefix("class "))
        for _, prediction in predictor.stream(files(Path(options.folder, "images/train")), batch_size=options.batch)
    ]
    return {"samples": len(answers), "loop": time.perf_counter() - began, "answers": answers}


def same_weights(options: SimpleNamespace, library: Literal["timm", "transformers"]) -> Any:
    """Another library's network with the weights of ours."""
    from focalnet.bench.peers import same_network
    from focalnet.models.create import create_model

    ours = create_model(weights=str(Path(options.folder, "predict")))
    return same_network(library, NETWORK, ours.focalnet.config, ours.state_dict()).eval()


def predict_timm(options: SimpleNamespace) -> dict[str, Any]:
    """As timm's inference.py does it."""
    from timm.data import create_dataset, create_loader

    model = same_weights(options, "timm")
    root = f"{options.folder}/images/train"
    loader = create_loader(
        create_dataset("", root=root), input_size=(3, options.side, options.side), batch_size=options.batch,
        interpolation="bicubic", crop_pct=0.875, num_workers=options.workers, device=torch.device("cpu"),
        persistent_workers=options.workers > 0,
    )  # fmt: skip
    answers, began = [], time.perf_counter()
    with torch.no_grad():
        for images, _ in loader:
            answers += model(images).softmax(-1).topk(5)[1][:, 0].tolist()
    return {"samples": len(answers), "loop": time.perf_counter() - began, "answers": answers}


def predict_transformers(options: SimpleNamespace) -> dict[str, Any]:
    """transformers' pipeline."""
    from transformers import BitImageProcessor, pipeline

    model = same_weights(options, "transformers")
    side = options.side
    processor = BitImageProcessor(
        size={"shortest_edge": int(side / 0.875)}, crop_size=side, image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    classify: Any = pipeline("image-classification", model=model, image_processor=processor, top_k=5, device="cpu")
    paths = [str(path) for path in files(Path(options.folder, "images/train"))]
    began = time.perf_counter()
    found = list(classify(paths, batch_size=options.batch, num_workers=options.workers))
    answers = [model.config.label2id[rows[0]["label"]] for rows in found]
    return {"samples": len(answers), "loop": time.perf_counter() - began, "answers": answers}


def evaluate_focalnet(options: SimpleNamespace) -> dict[str, Any]:
    from focalnet.cli import main

    words = ["--data", f"{options.folder}/scenes", "--workers", str(options.workers)]
    figures = Path(options.folder, f"figures{time.time_ns()}.json")
    with contextlib.redirect_stdout(sys.stderr):
        main(["evaluate", f"{options.folder}/evaluate", *words, "--json", str(figures)])
    rate = json.loads(figures.read_text())["val_samples_per_second"]
    count = len(files(Path(options.folder, "scenes")))
    return {"samples": count, "loop": count / rate}


def evaluate_torchvision(options: SimpleNamespace) -> dict[str, Any]:
    """torchvision's Mask R-CNN on timm's FocalNet, by the loop of torchvision's reference scripts."""
    import timm
    from faster_coco_eval import COCO, COCOeval_faster
    from faster_coco_eval.core import mask as codes
    from torchvision.datasets import CocoDetection
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops import FeaturePyramidNetwork
    from torchvision.transforms.functional import to_tensor

    class Pyramid(torch.nn.Module):
        out_channels = 256

        def __init__(self) -> None:
            super().__init__()
            self.body = timm.create_model(NETWORK, features_only=True, out_indices=(0, 1, 2, 3))
            self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), 256)

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return self.fpn({str(index): level for index, level in enumerate(self.body(images))})

    anchors = AnchorGenerator(((32,), (64,), (128,), (256,)), ((0.5, 1.0, 2.0),) * 4)
    torch.manual_seed(0)
    model = MaskRCNN(
        Pyramid(), len(options.things) + 1, min_size=options.scene, max_size=round(options.scene * 1333 / 800),
        rpn_anchor_generator=anchors,
    ).eval()  # fmt: skip
    scenes = Path(options.folder, "scenes")
    annotations = str(scenes / "annotations/instances_val2017.json")
    dataset = CocoDetection(str(scenes / "val2017"), annotations, transform=to_tensor)
    loader = torch.utils.data.DataLoader(dataset, 1, num_workers=options.workers, collate_fn=list)
    rows, began = [], time.perf_counter()
    with torch.no_grad():
        for index, batch in enumerate(loader):
            found = model([image for image, _ in batch])[0]
            columns = [found[name] for name in ("boxes", "labels", "scores", "masks")]
            for box, label, score, mask in zip(*columns, strict=True):
                x, y, right, bottom = box.tolist()
                code = codes.encode((mask[0] > 0.5).numpy().astype("uint8", order="F"))
                rows.append({"image_id": dataset.ids[index], "category_id": int(label), "score": float(score),
                             "bbox": [x, y, right - x, bottom - y], "segmentation": code})  # fmt: skip
    loop = time.perf_counter() - began
    with contextlib.redirect_stdout(sys.stderr):
        truth = COCO(annotations)
        if rows:
            for kind in ("bbox", "segm"):
                evaluator = COCOeval_faster(truth, truth.loadRes(rows), kind)
                evaluator.evaluate()
                evaluator.accumulate()
                evaluator.summarize()
    return {"samples": len(dataset), "loop": loop}


JOBS = {
    "finetune": {"focalnet": finetune_focalnet, "timm": finetune_timm},
    "predict": {"focalnet": predict_focalnet, "timm": predict_timm, "transformers": predict_transformers},
    "evaluate": {"focalnet": evaluate_focalnet, "torchvision": evaluate_torchvision},
}
PACKAGES = {
    "focalnet": ("focalnet.cli", "focalnet.engine.train", "accelerate", "torchvision.transforms.v2"),
    "timm": ("timm",), "transformers": ("transformers",), "torchvision": ("torchvision", "timm"),
}  # fmt: skip


def run(job: str, library: str, options: SimpleNamespace) -> dict[str, Any]:
    """Do a job; the imports are not counted."""
    for package in PACKAGES[library]:
        __import__(package)
    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    result = JOBS[job][library](options)
    return {**result, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    given = SimpleNamespace(**json.loads(sys.argv[3]))
    if sys.argv[1] == "prepare":
        prepare(given)
    else:
        print(json.dumps(run(sys.argv[1], sys.argv[2], given)))
