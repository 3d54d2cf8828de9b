"""One forward pass in which the labels of channels are followed from layer to layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from ..._compat import change_operations
from ..layers import LayerAdapter, adapter_of, description
from .labels import FIXED, Findings, fixed_like
from .operations import carry, tensors_in

__all__ = ["Answer", "Call", "Pass", "TooLong", "label_ranges", "run_pass"]

Scalar = bool | int | float

Answer = Callable[[int, Scalar], Scalar]
"""What a network is told when it asks for a number that its images decide.

It is given how many were asked for before, and the true number.
"""


class TooLong(Exception):
    """A forward pass that goes on and on."""


@dataclass(frozen=True)
class Call:
    """How a layer was used once.

    Attributes:
        read: Labels of the channels that it read, int64 [inputs].
        sizes: Shapes of what it read and wrote.
    """

    read: NDArray[np.int64]
    sizes: tuple[tuple[int, ...], tuple[int, ...]]


@dataclass
class Pass:
    """What one forward pass shows.

    Attributes:
        findings: Of labels.
        calls: Of every layer with an adapter, by name, in the order of its first call.
        foreign: In words, the modules with weight matrices and without an adapter, by name.
        outside: Layers whose weights something else than the layer itself reads.
        asked: The numbers that the network asked for and that its images decide.
        steps: Operations outside of layers.
        error: What ended the pass early; None where nothing did.
    """

    findings: Findings = field(default_factory=Findings)
    calls: dict[str, list[Call]] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)
    outside: set[str] = field(default_factory=set)
    asked: list[Scalar] = field(default_factory=list)
    steps: int = 0
    error: Exception | None = None


def label_ranges(network: nn.Module) -> dict[str, range]:
    """The labels of the channels that each layer writes, by name, of layers that make channels."""
    ranges: dict[str, range] = {}
    start = 0
    for name, module in network.named_modules():
        adapter = adapter_of(module)
        if adapter is not None and adapter.makes_channels(module):
            end = start + adapter.channels(module)[0]
            ranges[name] = range(start, end)
            start = end
    return ranges


def run_pass(
    network: nn.Module,
    example_input: Tensor,
    ranges: Mapping[str, range],
    answer: Answer = lambda place, number: number,
    most_steps: int | None = None,
) -> Pass:
    """Follow the channels of a network through one forward pass.

    Args:
        network: In evaluation mode; it is not changed.
        example_input: Images [n, C, H, W].
        ranges: As :func:`label_ranges` gives them.
        answer: Answers the network's questions.
        most_steps: Operations after which the pass ends with `TooLong`; None for no limit.

    Returns:
        What was found, up to an error if there was one.
    """
    found = Pass()
    follower = _Follower(network, ranges, found, answer, most_steps)
    with torch.inference_mode(False), torch.no_grad():
        images = example_input.clone()
        follower.labels[images] = fixed_like(images)
        try:
            with follower.hooked(), change_operations(follower.follow):
                outputs = network(images)
        except Exception as error:
            found.error = error
            return found
    for each in tensors_in(outputs):
        if each in follower.labels:
            found.findings.fix(follower.labels[each], None)
    return found


class _Follower:
    """Carries labels along with every operation, but for those inside of layers."""

    def __init__(
        self,
        network: nn.Module,
        ranges: Mapping[str, range],
        found: Pass,
        answer: Answer,
        most_steps: int | None,
    ) -> None:
        self.labels: Any = WeakTensorKeyDictionary()
        self._names = {module: name for name, module in network.named_modules()}
        self._adapters = {
            module: adapter
            for module in self._names
            if (adapter := adapter_of(module)) is not None and not adapter.passes_all(module)
        }
        # In words, while a layer has no other hooks than the user's.
        self._kinds = {module: description(module) for module in self._names}
        self._owners: dict[int, list[str]] = {}
        for module, name in self._names.items():
            for parameter in module.parameters(recurse=False):
                self._owners.setdefault(id(parameter), []).append(name)
        self._ranges = ranges
        self._found = found
        self._answer = answer
        self._most_steps = most_steps
        # Modules that are running, innermost last, and what the layer among them has read.
        self._running: list[nn.Module] = []
        self._layer: nn.Module | None = None
        self._read = np.zeros(0, dtype=np.int64)
        self._read_shape: tuple[int, ...] = ()

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """See every module begin and end."""
        handles = []
        for module, name in self._names.items():
            if isinstance(module, torch.jit.ScriptModule):  # it takes no such hooks
                self._found.foreign[name] = "which is scripted"
                continue
            handles += [
                module.register_forward_pre_hook(self._begin, with_kwargs=True),
                module.register_forward_hook(self._end, with_kwargs=True, always_call=True),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        """Carry labels along with an operation; returns what the network gets of it."""
        if self._layer is not None:
            return result
        self._found.steps += 1
        if self._most_steps is not None and self._found.steps > self._most_steps:
            raise TooLong
        read = tensors_in((args, kwargs))
        for each in read:
            self._found.outside.update(self._owners.get(id(each), ()))
        if not any(each in self.labels for each in read):
            return result
        if isinstance(result, bool | int | float):
            self._found.asked.append(result)
            return self._answer(len(self._found.asked) - 1, result)
        labels = carry(
            func,
            args,
            kwargs,
            result,
            labelled=self.labels.get,
            findings=self._found.findings,
            unknown=self._place(func),
        )
        for tensor, found in zip(tensors_in(result), tensors_in(labels), strict=False):
            self.labels[tensor] = found
        return result

    def _place(self, func: Any) -> str:
        """Where an operation is that is not known, to follow the name of a layer and a colon."""
        if len(self._running) > 1:
            module = self._running[-1]
            return f"it runs through {self._names[module]}, {self._kinds[module]}"
        return f"the network applies {func._schema.name.removeprefix('aten::')} to it"

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._running.append(module)
        adapter, name = self._adapters.get(module), self._names[module]
        weights = (each for each in module.parameters(recurse=False) if each.dim() > 1)
        if adapter is None and name and any(True for _ in weights):
            self._found.foreign[name] = self._kinds[module]
        given = tensors_in((args, kwargs))
        if adapter is not None and given and self._layer is None:
            self._layer = module
            self._read_shape = tuple(given[0].shape)
            self._read = self._channels_read(module, adapter, given[0])

    def _channels_read(
        self, module: nn.Module, adapter: LayerAdapter[Any], values: Tensor
    ) -> NDArray[np.int64]:
        """The label of each channel that a layer reads."""
        count = adapter.channels(module)[1]
        nothing = np.full(count, FIXED, dtype=np.int64)
        labels = self.labels.get(values)
        if labels is None:
            return nothing
        obstacle = adapter.obstacle(module)
        name = self._names[module]
        if obstacle is not None or labels.shape[adapter.channel_axis] != count:
            phrase = obstacle or "whose channels lie in another way than usual"
            self._found.findings.fix(labels, f"it runs through {name}, {phrase}")
            return nothing
        lines = labels.movedim(adapter.channel_axis, 0).reshape(count, -1)
        if bool((lines != lines[:, :1]).any()):
            self._found.findings.fix(labels, f"its channels are no longer apart where {name} reads")
            return nothing
        channels: NDArray[np.int64] = lines[:, 0].numpy().copy()
        return channels

    def _end(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        self._running.pop()
        if module is not self._layer:
            return
        self._layer = None
        adapter = self._adapters[module]
        if not isinstance(output, Tensor):
            return
        name = self._names[module]
        call = Call(self._read, (self._read_shape, tuple(output.shape)))
        self._found.calls.setdefault(name, []).append(call)
        written = np.array(self._ranges[name]) if name in self._ranges else self._read
        self.labels[output] = _laid_out(written, output, adapter.channel_axis)


def _laid_out(channels: NDArray[np.int64], values: Tensor, axis: int) -> Tensor:
    """Labels of values whose channels lie along an axis."""
    labels = fixed_like(values)
    if values.shape[axis] == len(channels):
        labels.movedim(axis, -1).copy_(torch.from_numpy(channels))
    return labels
