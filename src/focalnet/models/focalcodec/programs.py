"""The steps of a codec that are exported as files of their own.

    encode, decode               sounds and tokens of any length
    encode_first, encode_next    the first chunk of a stream, and each other one
    decode_first, decode_next    the same for the tokens of a chunk

The state of a stream is outputs `next_0`, `next_1`, … of one step and inputs `past_0`, `past_1`, … of the next. The
first chunk has a step of its own, as what stands before it is made of it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from focalnet.models.base import Program

CHUNKS = 4
"""Of a stream, that are its example."""


def programs(codec: Any) -> Mapping[str, Program]:
    """Those of a `FocalCodec`, with those of streams if it is causal."""
    found = {
        "encode": Program(
            call=lambda waves: (codec.encode(waves),),
            examples=lambda waves: [{"waves": waves}],
            outputs=("tokens",),
            free={"waves": (0, 1)},
        ),
        "decode": Program(
            call=lambda tokens: (codec.decode(tokens),),
            examples=lambda waves: [{"tokens": codec.encode(waves)}],
            outputs=("waves",),
            free={"tokens": (0, 1)},
        ),
    }
    size = codec.chunk_size
    if size is None:
        return found

    def waves_of(waves: Tensor) -> list[Tensor]:
        return [*waves.repeat(1, -(-CHUNKS * size // waves.shape[1])).split(size, 1)[:CHUNKS]]

    def tokens_of(waves: Tensor) -> list[Tensor]:
        stream = codec.stream()
        return [stream.encode(chunk) for chunk in waves_of(waves)]

    weight = next(codec.parameters())
    begun = tokens_of(weight.new_zeros(1, size))[0]
    return {
        **found,
        **_streamed(("encode", "waves", "tokens"), codec.encode_step, waves_of, weight.new_zeros(1, size)),
        **_streamed(("decode", "tokens", "waves"), codec.decode_step, tokens_of, begun),
    }


def _streamed(
    names: tuple[str, str, str], step: Any, chunks: Callable[[Tensor], list[Tensor]], one: Tensor
) -> dict[str, Program]:
    """A step at the beginning of a stream, and a later one.

    Args:
        names: of the step, of what it takes, and of what it gives.
        step: a chunk and the state, None at the beginning, to what is made of it and the next state.
        chunks: those of the network's inputs.
        one: a chunk.
    """
    name, takes, gives = names
    with torch.no_grad():
        begun, structure = tree_flatten(step(one)[1])
    outputs = (gives, *(f"next_{index}" for index in range(len(begun))))

    def call(chunk: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        made, after = step(chunk, tree_unflatten(list(states), structure) if states else None)
        return made, *tree_flatten(after)[0]

    def examples(inputs: Tensor) -> list[dict[str, Tensor]]:
        found: list[dict[str, Tensor]] = []
        states: list[Tensor] = []
        for chunk in chunks(inputs):
            found.append({takes: chunk, **{f"past_{index}": state for index, state in enumerate(states)}})
            _, *states = call(chunk, *states)
        return found

    fixed = {f"past_{index}": () for index, state in enumerate(begun) if state.ndim == 0}
    return {
        f"{name}_first": Program(call=call, examples=lambda inputs: examples(inputs)[:1], outputs=outputs),
        f"{name}_next": Program(call=call, examples=lambda inputs: examples(inputs)[1:], outputs=outputs, free=fixed),
    }
