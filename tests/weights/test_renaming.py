"""One table gives both directions."""

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from focalnet.errors import UserError
from focalnet.weights.renaming import Renaming, Row


def table(*rows) -> Renaming:
    return Renaming(rows, ours="our network", theirs="their layout")


def weights(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([float(place)]) for place, name in enumerate(names)}


def split(joined: torch.Tensor) -> list[torch.Tensor]:
    if joined.shape[0] % 3:
        raise ValueError("query, key and value share its rows")
    return list(joined.chunk(3))


QKV = Row(
    ("{i}.q.weight", "{i}.k.weight", "{i}.v.weight"),
    "{i}.in_proj",
    read=split,
    write=lambda *parts: torch.cat(parts),
)


@pytest.mark.parametrize(
    ("row", "ours", "theirs"),
    [
        (("norm", "ln"), "norm.weight", "ln.weight"),
        (("norm", "ln"), "norm.bias", "ln.bias"),
        (("gamma", "scale"), "gamma", "scale"),
        (("body.", "backbone."), "body.layers.0.anything", "backbone.layers.0.anything"),
        (("a.{i}.b{k}", "{k}.{i}.c"), "a.12.b0.weight", "0.12.c.weight"),
        (("net.{rest}.batch_norm.", "{rest}.bn."), "net.convs.0.batch_norm.weight", "convs.0.bn.weight"),
        (("layers.{s}.down", "layers.{s+1}.down"), "layers.9.down.bias", "layers.10.down.bias"),
        (("in.{l+3}.0.", "extra.{l}.conv."), "in.4.0.weight", "extra.1.conv.weight"),
        (("a.{i+2}", "b.{i+1}"), "a.2", "b.1"),
        (("a+b.(c)|d", "x"), "a+b.(c)|d.weight", "x.weight"),
    ],
)
def test_a_row_leads_both_ways(row, ours, theirs):
    assert table(row).write(weights(ours)) == weights(theirs)
    assert table(row).read(weights(theirs)) == weights(ours)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (("b", "norm"), "norm.running_mean"),
        (("b", "norm"), "norm."),
        (("b", "norm"), "norms.weight"),
        (("b", "norm"), "xnorm.weight"),
        (("b.", "body."), "body."),
        (("b.{i}", "a.{i}"), "a.x"),
        (("b.{i}", "a.{i}"), "a.01"),
        (("b.{i}", "a.{i}"), "a.٣"),
        (("b.{i}", "a.{i+1}"), "a.0"),
        (("b.{i}", "a.{i+3}"), "a.2"),
    ],
)
def test_a_name_that_no_row_fits_is_refused(row, name):
    with pytest.raises(UserError, match="1 of 1 name has no counterpart in our network: "):
        table(row).read(weights(name))


def test_all_names_without_a_counterpart_are_counted_and_four_are_listed():
    strange = [f"strange{place}" for place in range(6)]
    with pytest.raises(UserError, match=r"6 of 7 .* their layout: strange0, strange1, strange2, strange3, …; leave"):
        table(("a", "b")).write(weights("a", *strange))


def test_the_first_row_that_fits_is_taken_and_an_older_name_is_read():
    rows = table(("head.classifier.", "head.conv_seg."), ("head.", "head."), ("new", "b"), ("new", "old"))
    assert rows.read(weights("head.conv_seg.bias", "head.x", "old")) == weights("head.classifier.bias", "head.x", "new")
    assert rows.write(weights("head.classifier.bias", "head.x", "new")) == weights("head.conv_seg.bias", "head.x", "b")


def test_a_row_after_one_whose_number_is_too_small_is_taken():
    rows = table(("in.{l+2}", "extra.{l}"), ("in.{l}", "convs.{l}"))
    theirs = weights("convs.0", "convs.1", "extra.0", "extra.10")
    assert rows.write(weights("in.0", "in.1", "in.2", "in.12")) == theirs
    assert rows.read(theirs) == weights("in.0", "in.1", "in.2", "in.12")


def test_two_names_that_claim_one_place_are_refused():
    with pytest.raises(
        UserError, match=r"^b\.bias and old\.bias are one weight of our network; leave one of them out\."
    ):
        table(("a", "b"), ("a", "old")).read(weights("b.bias", "old.bias"))


def test_copies_are_written_and_read_while_they_agree():
    rows = table(("head.", ("decoder.head.", "head.last.")))
    written = rows.write(weights("head.bias"))
    assert list(written) == ["decoder.head.bias", "head.last.bias"]
    assert written["decoder.head.bias"] is written["head.last.bias"]
    assert rows.read(written) == weights("head.bias")
    for name in written:
        assert rows.read({name: written[name]}) == weights("head.bias")
    with pytest.raises(UserError, match=r"decoder\.head\.bias and head\.last\.bias are one weight"):
        rows.read(weights(*written))


def test_parts_are_split_and_joined():
    theirs = {"0.in_proj": torch.arange(6.0), "1.in_proj": torch.arange(3.0)}
    ours = table(QKV).read(theirs)
    assert list(ours) == [f"{i}.{part}.weight" for i in range(2) for part in "qkv"]
    assert ours["0.k.weight"].tolist() == [2, 3]
    for order in (list(ours), list(ours)[::-1]):
        back = table(QKV).write({name: ours[name] for name in order})
        assert {name: tensor.tolist() for name, tensor in back.items()} == {
            name: tensor.tolist() for name, tensor in theirs.items()
        }


def test_parts_of_another_shape_or_without_each_other_are_refused():
    with pytest.raises(UserError, match=r"2\.in_proj has the shape \(4,\); query, key and value share its rows\."):
        table(QKV).read({"2.in_proj": torch.arange(4.0)})
    with pytest.raises(UserError, match=r"0\.k\.weight is one weight of their layout together with 0\.q\.weight"):
        table(QKV).write(weights("0.k.weight", "0.v.weight"))


def test_values_change_where_a_row_says_so():
    rows = table(Row("f", "conv", read=lambda x: x.flatten(1), write=lambda x: x[:, :, None, None]), ("g", "h"))
    ours = {"f.weight": torch.randn(2, 3), "g": torch.randn(2)}
    theirs = rows.write(ours)
    assert theirs["conv.weight"].shape == (2, 3, 1, 1)
    assert theirs["h"] is ours["g"]
    assert torch.equal(rows.read(theirs)["f.weight"], ours["f.weight"])


def test_what_has_no_part_is_left_out_with_a_line_in_the_log(caplog):
    rows = table(("a", "b"), ((), "mean"))
    with caplog.at_level(logging.INFO, logger="focalnet"):
        assert rows.read(weights("b", "mean")) == weights("a")
    assert "left out what has no counterpart in our network: mean" in caplog.text
    with pytest.raises(UserError, match="no counterpart"):
        rows.write(weights("mean"))


numbers = st.integers(0, 200)
leaves = st.sampled_from(["weight", "bias"])
ROWS = table(
    ("stem", "patch"),
    ("blocks.{s}.{b}.norm{n}", "stages.{s}.layers.{b}.ln{n}"),
    ("down.{s}.", "stages.{s+1}.down."),
    ("in.{l+5}.", "extra.{l}."),
    ("in.{l}.", "convs.{l}."),
    ("enc_head.", ("head.last.", "decoder.head.last.")),
    QKV,
    ("net.{rest}.batch_norm.", "{rest}.bn."),
)
NAMES = st.one_of(
    st.builds("stem.{}".format, leaves),
    st.builds("blocks.{}.{}.norm{}.{}".format, numbers, numbers, numbers, leaves),
    st.builds("down.{}.{}".format, numbers, leaves),
    st.builds("in.{}.{}".format, numbers, leaves),
    st.builds("enc_head.{}".format, leaves),
    st.builds("net.x{}.y.batch_norm.{}".format, numbers, leaves),
)


@given(st.lists(NAMES, unique=True), st.sets(numbers, max_size=4))
def test_there_and_back_gives_the_same_names_in_the_same_order_with_the_same_numbers(names, layers):
    ours = weights(*names, *(f"{layer}.{part}.weight" for layer in layers for part in "qkv"))
    theirs = ROWS.write(ours)
    back = ROWS.read(theirs)
    assert list(back) == list(ours)
    assert back == ours
    assert list(ROWS.write(back)) == list(theirs)
