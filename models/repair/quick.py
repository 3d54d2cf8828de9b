"""Quick repair: least squares from the dense network's moments, a small solve per layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..layers import averager_of, multiplier_of
from ..reductions.channels import KeptChannels
from .moments import InputMoments, LayerMoments, weight_matrix
from .nested import NestedRegression

__all__ = ["QuickRepair"]

_CACHE_BYTES = 96 * 2**20


@dataclass(frozen=True)
class _Solution:
    """A repaired layer with all of its outputs.

    Attributes:
        weight: float32, the slim layer's weight before its own outputs are slimmed.
        shift: What the removed channels contributed on average, float32 [outputs].
    """

    weight: Tensor
    shift: Tensor

    @property
    def bytes(self) -> int:
        return 4 * (self.weight.numel() + self.shift.numel())


class QuickRepair:
    """Corrects the layers that read slimmed groups, as if their inputs were the dense network's.

    With inputs x (a patch), kept columns S and weight W, the new weight minimises
    E |W (x - E x) - W' (x_S - E x_S)|^2 + ridge |W' - W_S|^2, with the ridge that belongs to the
    moments; what is lost on average goes
    into the bias, or into the running mean of a BatchNorm that follows (method: our choice, close
    to channel reconstruction of He et al. 2017, arXiv 1707.06168, with patches for channels).

    A layer's solution depends on the kept channels of its own input alone, and searches come back
    to the same ones, so solutions are kept in memory (least recently used ones go first). Where the
    kept channels are the first ones of a known ranking, one factorisation serves all widths.

    Args:
        network: The dense network.
        moments: Moments of what its layers read.
        norms: BatchNorm that directly follows a layer, by layer name.
        rankings: Input channels of a layer, the one that stays longest first, int64 [C], for
            layers in one convolution group where candidates keep the first ones of such an order.
    """

    def __init__(
        self,
        network: nn.Module,
        moments: Mapping[str, InputMoments],
        norms: Mapping[str, str],
        rankings: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> None:
        self._network = network
        self._moments = moments
        self._norms = norms
        self._rankings = dict(rankings or {})
        self._nested: dict[str, NestedRegression] = {}
        self._solutions: OrderedDict[tuple[str, bytes], _Solution] = OrderedDict()
        self._bytes = 0

    @torch.no_grad()
    def apply(self, slimmed: nn.Module, kept: KeptChannels) -> None:
        """Correct a slim network in place.

        Args:
            slimmed: From :func:`prunetune.models.slim`; layers that it shares with the dense
                network read no group and are not touched.
            kept: Which channels of every layer it kept.
        """
        for name, (outputs, inputs) in kept.items():
            if inputs is None or name not in self._moments:
                continue
            solution = self._solve(name, inputs)
            weight, shift = solution.weight, solution.shift
            if outputs is not None:
                index = torch.from_numpy(outputs)
                weight, shift = weight[index], shift[index]
            layer = slimmed.get_submodule(name)
            layer._parameters["weight"] = nn.Parameter(weight.clone(), requires_grad=False)
            bias = multiplier_of(layer).bias(layer)
            if bias is not None:
                bias.add_(shift)
            elif name in self._norms:
                norm = slimmed.get_submodule(self._norms[name])
                averager_of(norm).mean(norm).sub_(shift)

    def _solve(self, name: str, inputs: NDArray[np.int64]) -> _Solution:
        key = (name, inputs.tobytes())
        solution = self._solutions.get(key)
        if solution is not None:
            self._solutions.move_to_end(key)
            return solution
        layer = self._network.get_submodule(name)
        weight = multiplier_of(layer).weight(layer)
        regression = _LayerRegression(weight, self._moments[name])
        ranking, moments = self._rankings.get(name), self._moments[name]
        if (
            ranking is not None
            and isinstance(moments, LayerMoments)
            and np.array_equal(np.sort(ranking[: len(inputs)]), inputs)
        ):
            if name not in self._nested:
                self._nested[name] = regression.nested(ranking, moments.with_ridge(0))
            solution = regression.ranked(self._nested[name], ranking, len(inputs))
        else:
            solution = regression.solve(inputs)
        self._solutions[key] = solution
        self._bytes += solution.bytes
        while self._bytes > _CACHE_BYTES and len(self._solutions) > 1:
            self._bytes -= self._solutions.popitem(last=False)[1].bytes
        return solution


class _LayerRegression:
    """The regressions of one layer's weights on its kept inputs, one for each convolution group."""

    def __init__(self, weight: Tensor, moments: InputMoments) -> None:
        self._weight = weight.detach()
        self._moments = moments
        self._channels = self._weight.shape[1]  # of one convolution group
        self._positions = self._weight[0, 0].numel()
        self._parts = len(moments.mean)

    def solve(self, inputs: NDArray[np.int64]) -> _Solution:
        """The solution for any input channels that stay, ascending int64 [C']."""
        columns = self._moments.columns(inputs)
        solved = [
            self._moments.regress(part, self._matrix(part), columns) for part in range(self._parts)
        ]
        return self._solution(solved, columns)

    def nested(self, ranking: NDArray[np.int64], covariance: Tensor) -> NestedRegression:
        """What all solutions along a ranking of the input channels have in common."""
        return NestedRegression(self._matrix(0), covariance, self._moments.columns(ranking))

    def ranked(
        self, nested: NestedRegression, ranking: NDArray[np.int64], channels: int
    ) -> _Solution:
        """The solution for the first ``channels`` input channels of a ranking."""
        order = self._moments.columns(ranking[:channels])
        columns, ascending = order.sort()
        return self._solution([nested.solve(len(order))[:, ascending].double()], columns)

    def _matrix(self, part: int) -> Tensor:
        rows = self._weight.chunk(self._parts)[part].double()
        return weight_matrix(rows, self._moments.per_channel)

    @property
    def _shares_positions(self) -> bool:
        return self._moments.per_channel != self._positions

    def _solution(self, solved: list[Tensor], columns: Tensor) -> _Solution:
        """Weights [rows, kept columns] of every convolution group as those of a layer."""
        weights, shifts = [], []
        for part, kept in enumerate(solved):
            mean = self._moments.mean[part].double()
            shift = self._matrix(part) @ mean - kept @ mean[columns]
            if self._shares_positions:
                kept = kept.reshape(-1, self._positions, kept.shape[1]).transpose(1, 2)
                shift = shift.reshape(-1, self._positions).sum(dim=1)
            weights.append(kept.reshape(len(kept), -1, *self._weight.shape[2:]))
            shifts.append(shift)
        return _Solution(torch.cat(weights).float(), torch.cat(shifts).float())
