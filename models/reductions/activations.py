"""The activations of a network, and the linear layers around each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from ..calls import map_size
from ..hooks import hear_calls
from ..layers import averages, is_unaltered, multiplies
from ..symbolic import trace
from .linear_maps import obstacle_to_joining

__all__ = ["ACTIVATIONS", "Activation", "Join", "find_activations"]

ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.Tanh,
)
"""What becomes linear: functions of one number at a time, by exact type."""

_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)


@dataclass(frozen=True)
class Join:
    """Two linear layers that are one when the activation between them is linear.

    Attributes:
        first: The layer before the activation.
        norm: The BatchNorm between it and the activation; None for none.
        second: The layer that alone reads the activation.
        places: Places of the map that each of the two writes, per image.
    """

    first: str
    norm: str | None
    second: str
    places: tuple[int, int]


@dataclass(frozen=True)
class Activation:
    """An activation that may become linear.

    Attributes:
        name: Of its module.
        source: What alone computes its input and can take over a scale and a shift: a BatchNorm,
            or a linear layer without one. None where there is no such layer.
        join: The layers around it, where they can become one; otherwise None.
    """

    name: str
    source: str | None = None
    join: Join | None = None


def find_activations(network: nn.Module, example_input: Tensor) -> tuple[Activation, ...]:
    """The activations of a network in the order of their execution.

    Only modules that run once in a forward pass count; functions such as ``torch.relu`` that are
    called without one cannot be replaced, and stay. Where a network cannot be traced symbolically
    nothing is known of what surrounds an activation, and no layers are joined.

    Args:
        network: In evaluation mode.
        example_input: Images [n, C, H, W].
    """
    order, places = _calls(network, example_input)
    modules = dict(network.named_modules())
    graph = trace(network)
    around = {} if graph is None else _neighbours(graph, modules)
    found = []
    for name in order:
        if type(modules[name]) in ACTIVATIONS and is_unaltered(modules[name]):
            before, after = around.get(name, ((), None))
            found.append(_activation(name, before, after, modules, places))
    return tuple(found)


def _activation(
    name: str,
    before: tuple[str, ...],
    after: str | None,
    modules: dict[str, nn.Module],
    places: dict[str, int],
) -> Activation:
    """What is known of one activation, of the modules right before and after it."""
    norm = before[0] if before and averages(modules[before[0]]) else None
    first = before[-1] if before and not averages(modules[before[-1]]) else None
    source = norm if norm is not None and getattr(modules[norm], "affine", False) else None
    if norm is None and first is not None and getattr(modules[first], "bias", None) is not None:
        source = first
    join = None
    if first is not None and after is not None and first in places and after in places:
        if obstacle_to_joining(modules[first], modules[after]) is None:
            join = Join(first, norm, after, (places[first], places[after]))
    return Activation(name, source, join)


def _calls(network: nn.Module, example_input: Tensor) -> tuple[list[str], dict[str, int]]:
    """Modules without children that run once, in order; and the places of linear layers' maps."""
    names = {module: name for name, module in network.named_modules()}
    calls: Counter[str] = Counter()
    places: dict[str, int] = {}

    def record(module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        calls[names[module]] += 1
        if multiplies(module):
            height, width = map_size(module, output)
            places[names[module]] = height * width

    handles = [hear_calls(each, record) for each in names if not each._modules]
    try:
        with torch.inference_mode():
            network(example_input[:1])
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, times in calls.items() if times == 1], {
        name: count for name, count in places.items() if calls[name] == 1
    }


def _neighbours(
    graph: fx.Graph, modules: dict[str, nn.Module]
) -> dict[str, tuple[tuple[str, ...], str | None]]:
    """Per module that runs once: what alone leads to it, nearest first, and what alone reads it."""
    times = Counter(node.target for node in graph.nodes if node.op == "call_module")

    def once(node: fx.Node) -> bool:
        return node.op == "call_module" and times[node.target] == 1

    found: dict[str, tuple[tuple[str, ...], str | None]] = {}
    for node in graph.nodes:
        if not once(node):
            continue
        before: list[str] = []
        for source in _sources(node, modules):
            if not once(source):
                break
            before.append(str(source.target))
            if not averages(modules[str(source.target)]):
                break
        reader = _reader(node, modules)
        after = str(reader.target) if reader is not None and once(reader) else None
        found[str(node.target)] = (tuple(before), after)
    return found


def _sources(node: fx.Node, modules: dict[str, nn.Module]) -> Iterator[fx.Node]:
    """The chain of nodes that alone lead to a node and that it alone reads, nearest first."""
    while len(node.all_input_nodes) == 1 and len(node.args) == 1:
        (node,) = node.all_input_nodes
        if len(node.users) != 1:
            return
        if not _is_transparent(node, modules):
            yield node


def _reader(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The only node that reads a node, past what passes everything on."""
    while len(node.users) == 1:
        (node,) = node.users
        if len(node.all_input_nodes) != 1:
            return None
        if not _is_transparent(node, modules):
            return node
    return None


def _is_transparent(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op != "call_module":
        return False
    module = modules[str(node.target)]
    return type(module) in _TRANSPARENT and is_unaltered(module)
