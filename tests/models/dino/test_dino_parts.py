import itertools

import pytest
import torch
from torchvision.ops import box_convert, generalized_box_iou, sigmoid_focal_loss

from focalnet.models.detection.deformable import DeformableAttention, deformable_attention
from focalnet.models.detection.losses import focal_loss
from focalnet.models.detection.matching import Truth, corners, generalized_iou, match, matching_cost
from focalnet.models.dino.denoising import Noise, group_count, hidden_queries, make_queries
from focalnet.models.dino.transformer import inverse_sigmoid

SHAPES = [(5, 7), (3, 2)]


def samples(queries: int = 6, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Values, places 0 to 1 and a little outside, and weights, in the original's order of axes."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 41, 3, 8, generator=generator, dtype=dtype)
    places = torch.rand(2, queries, 3, 2, 5, 2, generator=generator, dtype=dtype) * 1.4 - 0.2
    weights = torch.rand(2, queries, 3, 2, 5, generator=generator, dtype=dtype)
    return value, places, weights


def ours(value, places, weights, **options):
    grid = (2 * places - 1).permute(3, 0, 2, 4, 1, 5)
    return deformable_attention(value, SHAPES, grid, weights.permute(3, 0, 2, 4, 1), **options)


def test_deformable_attention_equals_that_of_transformers():
    module = pytest.importorskip("transformers.models.deformable_detr.modeling_deformable_detr")
    value, places, weights = samples()
    theirs = module.MultiScaleDeformableAttention()(value, torch.tensor(SHAPES), SHAPES, None, places, weights, 64)
    assert theirs.abs().max() > 1
    assert (ours(value, places, weights) - theirs).abs().max() < 1e-6


def test_deformable_attention_is_the_same_with_and_without_gradients():
    inputs = [x.requires_grad_() for x in samples(300)]
    learned = ours(*inputs)
    with torch.no_grad():
        plain = ours(*inputs)
    with torch.inference_mode():
        assert torch.equal(ours(*samples(300)), plain)
    assert (learned - plain).abs().max() < 2e-6 < learned.abs().max()
    assert learned.requires_grad
    one = [x.detach() for x in inputs]
    assert torch.equal(ours(one[0], one[1], inputs[2]), learned), "the weights alone may be learned"


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_of_deformable_attention(recompute):
    inputs = [x.requires_grad_() for x in samples(2, torch.float64)]
    assert torch.autograd.gradcheck(lambda *x: ours(*x, recompute=recompute), inputs, fast_mode=recompute)


def test_recomputing_keeps_less():
    def kept(recompute: bool) -> int:
        sizes = []
        inputs = [x.requires_grad_() for x in samples()]
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            ours(*inputs, recompute=recompute)
        return sum(sizes)

    assert kept(True) < 0.6 * kept(False)


def test_first_offsets_look_around():
    layer = DeformableAttention(16, levels=2, heads=4, points=3)
    offsets = layer.sampling_offsets.bias.view(4, 2, 3, 2)
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    for level, point in itertools.product(range(2), range(3)):
        assert torch.allclose(offsets[:, level, point], directions * (point + 1), atol=1e-6)


def test_a_map_of_one_value_gives_that_value():
    torch.manual_seed(0)
    layer = DeformableAttention(8, levels=2, heads=2, points=2)
    torch.nn.init.normal_(layer.attention_weights.weight)
    torch.nn.init.zeros_(layer.sampling_offsets.bias)
    reference = torch.full((1, 3, 2, 2), 0.5)
    tokens = torch.randn(1, 1, 8).expand(1, 41, 8)
    expected = layer.output_proj(layer.value_proj(tokens[:, :3]))
    assert torch.allclose(layer(torch.randn(1, 3, 8), reference, tokens, SHAPES), expected, atol=1e-5)


def truth() -> Truth:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.3, 0.6, 0.1, 0.1], [0.7, 0.2, 0.3, 0.2]])
    return Truth(boxes, torch.tensor([3, 1, 4]), torch.tensor([0, 0, 2]), torch.tensor([0, 1, 0]), [2, 0, 1])


def test_truth_of_pixels():
    boxes = [torch.tensor([[10.0, 20.0, 30.0, 60.0]]), torch.zeros(0, 4)]
    found = Truth.of(boxes, [torch.tensor([3]), torch.zeros(0, dtype=torch.long)], torch.tensor([[80, 100], [10, 20]]))
    assert found.boxes.tolist() == [pytest.approx([0.2, 0.5, 0.2, 0.5])]
    assert found.counts == [1, 0]


def test_groups_share_a_budget():
    assert group_count(100, [3, 0, 7]) == 14
    assert group_count(100, [200]) == 1
    assert group_count(100, [0, 0]) == 0
    assert group_count(0, [3]) == 0


def test_groups_are_hidden_from_each_other_and_from_ordinary_queries():
    hidden = hidden_queries(2, 2, 3, torch.zeros(1))
    assert hidden.int().tolist() == [
        [0, 0, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
    ]


@pytest.mark.parametrize("scale", [0.4, 1.0])
def test_positives_move_less_than_negatives(scale):
    torch.manual_seed(0)
    groups, found = 50, truth()
    embedding = torch.nn.Embedding(6, 8)
    noise = Noise.draw(2 * groups * 3, 6, torch.device("cpu"))
    made = make_queries(found, noise, embedding, groups=groups, queries=5, label_noise=0.5, box_noise=scale)
    assert made.content.shape == (3, 2 * groups * 2, 8)
    assert made.hidden.shape == (205, 205)
    assert not made.content[1].any()
    places = made.places.sigmoid().view(3, groups, 2, 2, 4)  # image, group, positive or negative, object
    object_ = found.boxes[1]  # the second one of the first image, far from the border
    moves = (corners(places[0, :, :, 1]) - corners(object_)).abs() / (object_[2:].repeat(2) / 2)
    assert moves[:, 0].max() <= scale * 1.01
    assert moves[:, 0].mean() == pytest.approx(scale / 2, rel=0.15)
    if scale < 1:  # above, a negative box may turn inside out and is clamped
        assert moves[:, 1].min() >= scale * 0.99
        assert moves[:, 1].max() <= 2 * scale * 1.01
    labels = torch.cdist(made.content[0], embedding.weight).argmin(1).view(groups, 2, 2)
    share = (labels[:, :, 0] == 3).float().mean()
    assert share == pytest.approx(1 - 0.25 * 5 / 6, abs=0.1)


def test_the_matching_is_the_cheapest_one():
    generator = torch.Generator().manual_seed(2)
    logits, boxes = torch.randn(4, 3, 5, 6, generator=generator), torch.rand(4, 3, 5, 4, generator=generator)
    found = truth()
    pairs = match(logits, boxes, found)
    assert len(pairs.sets) == 4 * 3
    labels = torch.tensor([[3, 1], [0, 0], [4, 0]])
    targets = torch.zeros(3, 1, 2, 4)
    targets[0, 0], targets[2, 0, 0] = found.boxes[:2], found.boxes[2]
    cost = matching_cost(logits, boxes, labels, targets)
    for layer in range(4):
        chosen = {int(o): int(q) for s, q, o in zip(*pairs, strict=True) if s == layer}
        best = min(itertools.permutations(range(5), 2), key=lambda q: sum(cost[layer, 0, q[i], i] for i in range(2)))
        assert (chosen[0], chosen[1]) == best
        assert chosen[2] == cost[layer, 2, :, 0].argmin()


def test_more_objects_than_queries():
    pairs = match(torch.randn(1, 3, 1, 6), torch.rand(1, 3, 1, 4), truth())
    assert pairs.queries.tolist() == [0, 0]
    assert pairs.objects[1] == 2


def test_giou_and_focal_loss_are_those_of_torchvision():
    generator = torch.Generator().manual_seed(4)
    one, other = (torch.rand(6, 4, generator=generator) for _ in range(2))
    theirs = generalized_box_iou(*(box_convert(x, "cxcywh", "xyxy") for x in (one, other)))
    assert (generalized_iou(corners(one)[:, None], corners(other)) - theirs).abs().max() < 1e-4
    logits, targets = 3 * torch.randn(7, 5, generator=generator), (torch.rand(7, 5, generator=generator) > 0.5).float()
    assert torch.allclose(focal_loss(logits, targets), sigmoid_focal_loss(logits, targets), atol=1e-6)


def test_inverse_sigmoid():
    x = torch.tensor([0.0, 0.25, 0.9, 1.0])
    assert inverse_sigmoid(x).sigmoid().tolist() == pytest.approx([0.001, 0.25, 0.9, 0.999], abs=1e-4)
