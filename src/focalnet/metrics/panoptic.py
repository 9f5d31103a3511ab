"""Panoptic quality, as the COCO panoptic evaluation defines it.

Within one image a predicted and a true segment of the same class match if their IoU is over 0.5; there is at most
one such partner. With the matches TP, the predicted segments left over FP and the true ones left over FN, per class
over all images:

    SQ = sum of IoU over TP / |TP|
    RQ = |TP| / (|TP| + |FP| / 2 + |FN| / 2)
    PQ = SQ * RQ

and the means over the classes with at least one TP, FP or FN: over all of them, the things, the stuff.

    void     pixels of the truth without a segment (id 0), or whose segment has the label `ignore`: they are taken out
             of the union, and a predicted segment that lies by more than half on void is no FP
    crowd    a true segment that covers a group is never matched and is no FN; a predicted segment that lies by more
             than half on void and the crowds of its class is no FP

Where panopticapi remembers only the last crowd of a class in an image, all of them count here; COCO has at most one.
Segments without a pixel count nowhere. torchmetrics' PanopticQuality knows no crowd, and excuses what the prediction
leaves empty as it excuses void in the truth; it agrees where there is neither.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from focalnet.errors import UserError
from focalnet.metrics import gathered

IOU, TP, FP, FN = range(4)


class PanopticMetric:
    """PQ, SQ and RQ of all classes, of things and of stuff.

    Args:
        num_classes: K; labels are 0 to K - 1.
        things: per class, whether it is a thing (countable) or stuff.
        ignore: the label of true segments that are void.
    """

    def __init__(self, num_classes: int, things: Sequence[bool], ignore: int = 255) -> None:
        assert len(things) == num_classes
        self.things = torch.tensor([bool(thing) for thing in things])
        self.ignore = ignore
        self.sums = torch.zeros(num_classes, 4, dtype=torch.float64)

    def update(
        self,
        pred_ids: Tensor,
        pred_segments: Iterable[Mapping[str, Any]],
        truth_ids: Tensor,
        truth_segments: Iterable[Mapping[str, Any]],
    ) -> None:
        """Take in one image.

        Args:
            pred_ids: (H, W), the segment of each pixel; pixels of ids without a segment belong to none.
            pred_segments: of each segment its `id`, which is not 0, and its `label`.
            truth_ids: (H, W), likewise.
            truth_segments: likewise, and `crowd` for those that cover a group.
        """
        assert pred_ids.shape == truth_ids.shape, f"prediction {pred_ids.shape}, truth {truth_ids.shape}"
        rows, row = truth_ids.unique(return_inverse=True)
        columns, column = pred_ids.unique(return_inverse=True)
        pairs = torch.bincount((row * len(columns) + column).flatten(), minlength=len(rows) * len(columns))
        pixels = pairs.view(len(rows), len(columns)).cpu()  # of each true and each predicted id
        truth = _by_id(truth_segments)
        truth = {number: segment for number, segment in truth.items() if segment["label"] != self.ignore}
        of_row = [truth.get(number) for number in rows.tolist()]
        found_by_id = _by_id(pred_segments)
        of_column = [found_by_id.get(number) for number in columns.tolist()]
        void = pixels[[segment is None for segment in of_row]].sum(0)
        area = pixels.sum(0)

        matched = set()
        for r, true in enumerate(of_row):
            if true is None or true.get("crowd"):
                continue
            for c in pixels[r].nonzero().flatten().tolist():
                found = of_column[c]
                if found is None or found["label"] != true["label"]:
                    continue
                union = int(pixels[r].sum() + area[c] - pixels[r, c] - void[c])
                iou = int(pixels[r, c]) / union
                if iou > 0.5:
                    self.sums[true["label"], IOU] += iou
                    self.sums[true["label"], TP] += 1
                    matched.add(c)
                    break
            else:
                self.sums[true["label"], FN] += 1
        for c, found in enumerate(of_column):
            if found is None or c in matched:
                continue
            crowds = [bool(true and true.get("crowd") and true["label"] == found["label"]) for true in of_row]
            if void[c] + pixels[crowds, c].sum() <= 0.5 * area[c]:
                self.sums[found["label"], FP] += 1

    def compute(self) -> dict[str, float]:
        """`pq`, `sq`, `rq`, and with `_things` and `_stuff` those of either kind, 0 to 1, over all processes. The
        figures of a kind of which no segment was seen are absent.

        Raises:
            UserError: not one segment counts.
        """
        quality, seen = self._qualities()
        if not seen.any():
            raise UserError("There is no segment that counts, so there is no panoptic quality; give annotated images.")
        metrics = {}
        for suffix, kind in {"": seen, "_things": seen & self.things, "_stuff": seen & ~self.things}.items():
            if kind.any():
                means = quality[kind].mean(0).tolist()
                metrics |= {f"{name}{suffix}": mean for name, mean in zip(("pq", "sq", "rq"), means, strict=True)}
        return metrics

    def details(self) -> dict[str, Any]:
        """`classes`: per class `pq`, `sq`, `rq` (None for a class that was not seen), whether it is a `thing`, and how
        many segments were `matched`, `missed` (FN) and `wrong` (FP). JSON can hold it."""
        quality, seen = self._qualities()
        counts = self._total()[:, TP:].long().tolist()
        rows = []
        for index, (matched, wrong, missed) in enumerate(counts):
            pq, sq, rq = quality[index].tolist() if seen[index] else (None, None, None)
            kind = {"thing": bool(self.things[index])}
            rows.append({"pq": pq, "sq": sq, "rq": rq, **kind, "matched": matched, "missed": missed, "wrong": wrong})
        return {"classes": rows}

    def _total(self) -> Tensor:
        return torch.stack(gathered(self.sums)).sum(0)

    def _qualities(self) -> tuple[Tensor, Tensor]:
        """PQ, SQ and RQ of each class (K, 3), and which classes were seen (K,)."""
        iou, tp, fp, fn = self._total().unbind(1)
        segments = tp + (fp + fn) / 2
        sq, rq = iou / tp.clamp(min=1), tp / segments.clamp(min=0.5)
        return torch.stack([sq * rq, sq, rq], 1), segments > 0


def _by_id(segments: Iterable[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    found = {int(segment["id"]): segment for segment in segments}
    assert 0 not in found, "id 0 is void"
    return found
