"""Which layers of a file lose most in int8: the noise that each of them adds.

The noise of a tensor is the energy of its difference from float32 as a share of its energy there. What a layer adds is
the noise of its output less that of its input: rounded weights, rounded inputs, saturated sums.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PREFIX = "network."
"""Of the names of weights in a file, see `tracing.Raw`."""
MOST = 3
Graph = Sequence[tuple[str, list[str], list[str]]]
"""Type, names of inputs and names of outputs of every node, in order."""
Key = tuple[str, bool]
"""A tensor, and whether as the next node sees it: rounded, where it is quantized."""
Values = Mapping[Key, np.ndarray]


class Layer(NamedTuple):
    """A product or convolution: what it is called in the network, its input and output in the file."""

    name: str
    input: str
    output: str


def noisiest(
    plain: Path, path: Path, kind: str, feeds: Callable[[], Iterator[list[np.ndarray]]], count: int
) -> list[tuple[str, float]]:
    """The layers that add most noise, and how much, the worst first.

    Args:
        plain: a file in float32.
        path: the same in int8.
        kind: their format.
        feeds: inputs.
        count: how many of them to take.
    """
    graph, peek = READERS[kind]
    layers = layers_of(graph(plain))
    fed = list(islice(feeds(), count))
    noise = noise_of(peek(plain, layers, fed), peek(path, layers, fed))
    added = {
        layer.name: noise[layer.output, True] - noise[layer.input, False]
        for layer in layers
        if (layer.output, True) in noise and (layer.input, False) in noise
    }
    return [(name, share) for name, share in sorted(added.items(), key=lambda item: -item[1])[:MOST] if share > 0]


def noise_of(ours: Iterable[Values], theirs: Iterable[Values]) -> dict[Key, float]:
    """The noise of every tensor that both have, over pairs of runs."""
    energy: dict[Key, float] = defaultdict(float)
    error: dict[Key, float] = defaultdict(float)
    for one, other in zip(ours, theirs, strict=True):
        for key in one.keys() & other.keys():
            energy[key] += float(np.square(one[key], dtype=np.float64).sum())
            error[key] += float(np.square(one[key] - other[key], dtype=np.float64).sum())
    return {key: error[key] / max(value, 1e-30) for key, value in energy.items()}


def layers_of(graph: Graph) -> list[Layer]:
    """The products and convolutions with weights, by the name of the weight or of the bias that is added."""
    takers = defaultdict(list)
    for _, inputs, _ in graph:
        for name in inputs:
            takers[name] += inputs
    found = []
    for kind, inputs, outputs in graph:
        if kind in ("MatMul", "Gemm", "Conv", "Convolution", "GroupConvolution"):
            near = [name for name in [*inputs, *takers[outputs[0]]] if name.startswith(PREFIX)]
            name = near[0].removeprefix(PREFIX).rpartition(".")[0] if near else outputs[0]
            found.append(Layer(name, inputs[0], outputs[0]))
    return found


def _onnx_graph(path: Path) -> Graph:
    import onnx

    return [(node.op_type, list(node.input), list(node.output)) for node in onnx.load(str(path)).graph.node]


def _peek_onnx(path: Path, layers: Sequence[Layer], fed: Sequence[list[np.ndarray]]) -> Iterator[Values]:
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    there = {name for node in model.graph.node for name in node.output} | {port.name for port in model.graph.input}
    names: dict[Key, str] = {(layer.input, False): layer.input for layer in layers}
    for layer in layers:
        rounded = f"{layer.output}_DequantizeLinear_Output"
        names[layer.output, True] = rounded if rounded in there else layer.output
    names = {key: name for key, name in names.items() if name in there}
    known = {port.name for port in (*model.graph.output, *model.graph.input)}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted({*names.values()} - known))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = [port.name for port in session.get_inputs()]
    outputs = [port.name for port in session.get_outputs()]
    for arrays in fed:
        values = dict(zip(inputs, arrays, strict=True))
        values |= dict(zip(outputs, session.run(outputs, values), strict=True))
        yield {key: values[name] for key, name in names.items()}


def _openvino_name(port: Any) -> str:
    """Of a tensor, the same in both files; of a weight, its own."""
    node = port.get_node()
    return node.get_friendly_name() if node.get_type_name() == "Constant" else min(port.get_names(), default="")


def _openvino_graph(path: Path) -> Graph:
    import openvino

    nodes = openvino.Core().read_model(str(path)).get_ordered_ops()
    return [
        (node.get_type_name(), [*map(_openvino_name, node.input_values())], [*map(_openvino_name, node.outputs())])
        for node in nodes
    ]


def _peek_openvino(path: Path, layers: Sequence[Layer], fed: Sequence[list[np.ndarray]]) -> Iterator[Values]:
    import openvino

    model = openvino.Core().read_model(str(path))
    there = {_openvino_name(port) for node in model.get_ordered_ops() for port in node.outputs()}
    names: dict[Key, str] = {(layer.input, False): layer.input for layer in layers}
    names |= {(layer.output, True): layer.output for layer in layers}
    names = {key: name for key, name in names.items() if name and name in there}
    model.add_outputs(sorted({*names.values()} - {name for port in model.inputs for name in port.get_names()}))
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for arrays in fed:
        found = compiled(arrays)
        values = {name: array for port, array in found.items() for name in port.get_names()}
        yield {key: values[name] for key, name in names.items() if name in values}


READERS: Mapping[str, tuple[Callable[[Path], Graph], Callable[..., Iterator[Values]]]] = {
    "onnx": (_onnx_graph, _peek_onnx),
    "openvino": (_openvino_graph, _peek_openvino),
}
"""Format -> the graph of a file, and the values of layers in it."""
