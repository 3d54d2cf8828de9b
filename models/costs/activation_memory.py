"""Peak activation memory: what a forward pass keeps alive, as a function of the widths."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ..._compat import StorageReference, each_operation, storage_key, storage_reference
from ...errors import NetworkError
from ..copying import shallow_copy
from ..groups import ChannelGroups
from ..reductions.channels import slim
from ..zoo.shortcut import PadShortcut
from .cost import BYTES, Cost

__all__ = [
    "ActivationMemoryCost",
    "ActivationTable",
    "measure_peak_activations",
    "tabulate_activations",
]


@dataclass(frozen=True)
class ActivationTable:
    """Bytes that are alive at the moments of a forward pass that can be its peak.

    A moment's bytes are ``fixed + per_unit @ widths``, because every tensor's size is linear in
    the channels that it has; the peak is the largest of them. Moments that never exceed another
    one are left out.

    Attributes:
        per_unit: Bytes per unit of every group, [moments][G].
        fixed: Bytes that no width changes, [moments].
    """

    per_unit: tuple[tuple[int, ...], ...]
    fixed: tuple[int, ...]

    def peak(self, widths: ArrayLike) -> NDArray[np.int64]:
        """Peak bytes of candidates ``widths`` [N, G], int64 [N]."""
        units = np.asarray(widths, dtype=np.int64)
        return np.asarray((units @ self._matrix.T + self._constants).max(axis=1))

    def known_peaks(self, widths: ArrayLike) -> NDArray[np.int64]:
        """Peak bytes as they become known when groups are decided in order.

        Args:
            widths: Units kept, int64 [N, G].

        Returns:
            int64 [N, G]; column t counts the first t + 1 groups and what no width changes, so
            that it never falls along a row and ends at :meth:`peak`.
        """
        units = np.asarray(widths, dtype=np.int64)
        alive = np.cumsum(units[:, None] * self._matrix, axis=2) + self._constants[:, None]
        return np.asarray(alive.max(axis=1))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable description; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> ActivationTable:
        """The table that :meth:`to_dict` described, also after a JSON round trip."""
        rows = tuple(tuple(int(size) for size in row) for row in description["per_unit"])
        return cls(rows, tuple(int(size) for size in description["fixed"]))

    @cached_property
    def _matrix(self) -> NDArray[np.int64]:
        return np.array(self.per_unit, dtype=np.int64)

    @cached_property
    def _constants(self) -> NDArray[np.int64]:
        return np.array(self.fixed, dtype=np.int64)


class ActivationMemoryCost(Cost):
    """Peak of live activations at batch 1 in bytes, float32.

    Args:
        table: What is alive at which moment.
        sizes: Units of every group of the dense network, int64 [G].
    """

    name = "activation-memory"
    tabulated = True
    units = BYTES
    example = "2MB"

    def __init__(self, table: ActivationTable, sizes: NDArray[np.int64]) -> None:
        self._table = table
        self._dense = float(table.peak(sizes[None])[0])
        self.dense = self._dense

    def fraction(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`Cost.fraction`."""
        return np.asarray(self._table.peak(candidates) / self._dense)

    def shares(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`Cost.shares`: by how much each step raises the peak that is known so far."""
        known = self._table.known_peaks(candidates) / self._dense
        return np.diff(known, axis=1, prepend=0.0)


def measure_peak_activations(network: nn.Module, example_input: Tensor) -> int:
    """Peak of the bytes that a forward pass keeps alive at once, by running it.

    The input counts and so does every tensor that an operation returns, from then until nothing
    refers to its storage any more; parameters, buffers and the inside of an operation do not.

    Args:
        network: Any network, in evaluation mode, on the CPU.
        example_input: One image [1, C, H, W].
    """
    trace = _record(network, example_input)
    return max(sum(trace.sizes[tensor] for tensor in moment) for moment in trace.moments)


def tabulate_activations(
    network: nn.Module, example_input: Tensor, groups: ChannelGroups
) -> ActivationTable:
    """Find out what every group contributes, by one forward pass per group.

    A `PadShortcut` counts as it runs once its channels are no longer in a row; while they are, as
    in the dense network, it needs a little less.

    Args:
        network: The dense network, in evaluation mode, float32, on the CPU.
        example_input: One image [1, C, H, W].
        groups: Its channel groups.

    Raises:
        NetworkError: If a forward pass makes other tensors when the network is slimmed, so that
            there is no table.
    """
    network = shallow_copy(network, _scattered_shortcut)
    dense = _record(network, example_input)
    sizes = np.array(dense.sizes, dtype=np.int64)
    per_unit = np.zeros((len(sizes), len(groups)), dtype=np.int64)
    for index, group in enumerate(groups):
        widths = [each.size for each in groups]
        widths[index] = group.size // 2
        removed = group.size - widths[index]
        smaller = _sizes_like(dense, _slim_to(network, groups, widths), example_input)
        per_unit[:, index] = (sizes - smaller) // removed
    constants = sizes - per_unit @ np.array(groups.sizes, dtype=np.int64)
    widths = [max(1, group.size // 3) for group in groups]
    narrow = _sizes_like(dense, _slim_to(network, groups, widths), example_input)
    if not np.array_equal(constants + per_unit @ np.array(widths, dtype=np.int64), narrow):
        raise NetworkError(
            "The network's activations are not linear in its widths, so that their memory cannot "
            "be tabulated; leave the budget activation-memory out."
        )
    alive = np.zeros((len(dense.moments), len(sizes)), dtype=np.int64)
    for row, moment in enumerate(dense.moments):
        alive[row, list(moment)] = 1
    return _without_dominated(alive @ per_unit, alive @ constants)


@dataclass(frozen=True)
class _Trace:
    """The tensors of a forward pass by their order of creation.

    Attributes:
        sizes: Bytes of each.
        moments: Which of them are alive after each operation that made one.
    """

    sizes: Sequence[int]
    moments: Sequence[tuple[int, ...]]


class _Recorder:
    """Remembers which memory operations take and how long it lives."""

    def __init__(self, ignored: set[int]) -> None:
        self.sizes: list[int] = []
        self.moments: list[tuple[int, ...]] = []
        self._ignored = ignored
        self._alive: dict[int, tuple[StorageReference, int]] = {}

    def add(self, tensors: Sequence[Any]) -> None:
        """Note storages that are new."""
        before = len(self.sizes)
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                continue
            key = storage_key(tensor)
            if key not in self._ignored and key not in self._alive:
                self._alive[key] = (storage_reference(tensor), len(self.sizes))
                self.sizes.append(tensor.untyped_storage().nbytes())
        if len(self.sizes) > before:
            self.moments.append(tuple(number for _, number in self._alive.values()))

    def forget(self) -> None:
        """Note which storages have gone."""
        dead = [key for key, (storage, _) in self._alive.items() if storage.expired()]
        for key in dead:
            del self._alive[key]


def _record(network: nn.Module, example_input: Tensor) -> _Trace:
    weights = (*network.parameters(), *network.buffers())
    recorder = _Recorder({storage_key(each) for each in weights})
    image = example_input.detach().clone()
    # Inference mode would hide what composite operations are made of.
    with torch.no_grad(), each_operation(recorder.forget, recorder.add):
        recorder.add([image])
        network(image)
    return _Trace(recorder.sizes, recorder.moments)


def _sizes_like(dense: _Trace, network: nn.Module, example_input: Tensor) -> NDArray[np.int64]:
    trace = _record(network, example_input)
    if list(trace.moments) != list(dense.moments):
        raise NetworkError(
            "The network makes other tensors when it is slimmed, so that its activation memory "
            "cannot be tabulated; leave the budget activation-memory out."
        )
    return np.array(trace.sizes, dtype=np.int64)


def _scattered_shortcut(name: str, module: nn.Module) -> nn.Module | None:
    if not isinstance(module, PadShortcut):
        return None
    scattered = copy.copy(module)
    scattered.source = module.source[::-1]
    return scattered


def _slim_to(network: nn.Module, groups: ChannelGroups, widths: Sequence[int]) -> nn.Module:
    kept = [np.arange(width, dtype=np.int64) for width in widths]
    return slim(network, groups, kept)


def _without_dominated(
    per_unit: NDArray[np.int64], constants: NDArray[np.int64]
) -> ActivationTable:
    rows = np.unique(np.column_stack([per_unit, constants]), axis=0)
    # A row that is nowhere above another one is never the only peak.
    kept = [
        row
        for index, row in enumerate(rows)
        if not any((rows[other] >= row).all() for other in range(len(rows)) if other != index)
    ]
    return ActivationTable(
        tuple(tuple(int(size) for size in row[:-1]) for row in kept),
        tuple(int(row[-1]) for row in kept),
    )
