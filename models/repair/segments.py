"""A network cut into segments that pass on one value each, such as its residual blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import fx, nn

from ..layers import multiplies
from ..symbolic import trace

__all__ = ["Segment", "cut_network"]

# With two layers, the first one's outputs are free to become whatever serves the second one best.
_LEAST_LAYERS = 2


@dataclass(frozen=True)
class Segment:
    """Consecutive calls of a network with one input and one output.

    Attributes:
        graph: The calls.
        layers: Convolutions and linear layers among them, in the order of execution.
        own: Modules that are called here and in no other segment.
        output: The modules whose output this is but for calls that keep channels apart, last one
            first.
    """

    graph: fx.Graph
    layers: tuple[str, ...]
    own: frozenset[str]
    output: tuple[str, ...]

    def of(self, network: nn.Module) -> fx.GraphModule:
        """These calls with the modules of ``network``, which are shared and not copied."""
        return fx.GraphModule(network, self.graph)


def cut_network(network: nn.Module) -> tuple[Segment, ...]:
    """Cut wherever a single value is all that the rest of the network depends on.

    A segment has at least two convolutions or linear layers (the last one may have fewer) and ends
    right before the next of them, behind rectifiers and pooling.

    Args:
        network: The dense network; slim ones have the same calls.

    Returns:
        Segments in the order of execution; none where the network cannot be traced or has not
        exactly one input and one output.
    """
    graph = trace(network)
    if graph is None:
        return ()
    modules = dict(network.named_modules())
    values = [node for node in graph.nodes if node.op not in ("get_attr", "output")]
    inputs = [node for node in values if node.op == "placeholder"]
    final = next(node for node in graph.nodes if node.op == "output").args[0]
    if len(inputs) != 1 or not isinstance(final, fx.Node):
        return ()
    segments: list[Segment] = []
    source, begun = inputs[0], 1
    for position, node in enumerate(values):
        layers = _layers(values[begun : position + 1], modules)
        follows = values[position + 1] if position + 1 < len(values) else None
        if node is not final and (
            len(layers) < _LEAST_LAYERS
            or follows is None
            or not _layers([follows], modules)
            or not _is_cut(values, position)
        ):
            continue
        calls = values[begun : position + 1]
        elsewhere = _called(set(values) - set(calls))
        segments.append(
            Segment(
                _subgraph(source, calls),
                layers,
                _called(calls) - elsewhere,
                _origins(node, source),
            )
        )
        source, begun = node, position + 1
        if node is final:
            break
    return tuple(segments)


def _called(nodes: Iterable[fx.Node]) -> frozenset[str]:
    return frozenset(str(node.target) for node in nodes if node.op == "call_module")


def _layers(nodes: Sequence[fx.Node], modules: dict[str, nn.Module]) -> tuple[str, ...]:
    """Convolutions and linear layers that are called."""
    return tuple(
        str(node.target)
        for node in nodes
        if node.op == "call_module" and multiplies(modules[str(node.target)])
    )


def _is_cut(values: Sequence[fx.Node], position: int) -> bool:
    """Whether nothing before ``values[position]`` is needed after it."""
    later = set(values[position + 1 :])
    return not any(
        user in later or user.op == "output" for node in values[:position] for user in node.users
    )


def _subgraph(source: fx.Node, calls: Sequence[fx.Node]) -> fx.Graph:
    graph = fx.Graph()
    copies = {source: graph.placeholder("x")}

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:
            assert node.op == "get_attr"
            copies[node] = graph.node_copy(node)
        return copies[node]

    for node in calls:
        for needed in node.all_input_nodes:
            copied(needed)
        copies[node] = graph.node_copy(node, copied)
    graph.output(copies[calls[-1]])
    return graph


def _origins(node: fx.Node, source: fx.Node) -> tuple[str, ...]:
    """Modules that a value went through, backwards along the first argument of every call."""
    names = []
    while node is not source:
        if node.op == "call_module":
            names.append(str(node.target))
        if not node.all_input_nodes:
            break
        node = node.all_input_nodes[0]
    return tuple(names)
