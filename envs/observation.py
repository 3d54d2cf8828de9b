"""What the agent sees at a step: the group to decide, and the state of the budgets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..models.costs.tables import LayerInfo, Structure

__all__ = ["BUDGET_FEATURES", "GROUP_FEATURES", "budget_features", "group_features"]

# Layers of these kinds follow those that make a group's channels.
_FOLLOWING = ("norm", "activation")

GROUP_FEATURES = (
    "index",
    "depthwise",
    "linear",
    "input channels",
    "output channels",
    "kernel",
    "stride",
    "input size",
    "layers",
    "flops share",
    "params share",
)
"""Static features of a group: AMC's, over the layers that produce its channels, plus coupling."""

BUDGET_FEATURES = ("limit", "spent", "rest", "removed", "removable", "slack")
"""State of one budget, all as fractions of the dense network's cost.

limit; known cost of the groups decided; what the rest costs if it is uniform; what the decisions
so far have removed; what the rest could still remove; limit minus the total if the rest is
uniform.
"""


def group_features(structure: Structure) -> NDArray[np.float32]:
    """Static features of every group.

    Args:
        structure: Tables of the network.

    Returns:
        float32 of shape [G, len(GROUP_FEATURES)], every column scaled to [0, 1]: shares as
        they are, everything else min-max over the groups, as AMC does (He et al. 2018).
    """
    count = len(structure.groups)
    producers = [_touching(structure, group, lambda layer: layer.outputs) for group in range(count)]
    readers = [_touching(structure, group, lambda layer: layer.inputs) for group in range(count)]
    layer_flops = structure.layer_flops(structure.sizes) / max(1, structure.dense_flops)
    layer_params = structure.layer_params(structure.sizes) / max(1, structure.dense_params)
    position = {id(layer): index for index, layer in enumerate(structure.layers)}
    dense = structure.sizes
    scaled, shares = [], []
    for group in range(count):
        made = [layer for layer in producers[group] if layer.kind not in _FOLLOWING]
        made = made or producers[group]
        touched = {position[id(layer)] for layer in (*producers[group], *readers[group])}
        scaled.append(
            [
                group,
                any(layer.kind == "depthwise" for layer in made),
                any(layer.kind == "linear" for layer in made),
                np.log(_largest(made, lambda layer: _channels(layer, dense))),
                np.log(float(dense[group])),
                _largest(made, lambda layer: max(layer.kernel)),
                _largest(made, lambda layer: layer.stride),
                _largest(made, lambda layer: max(layer.input_size)),
                len(made),
            ]
        )
        indices = sorted(touched)
        shares.append([layer_flops[indices].sum(), layer_params[indices].sum()])
    columns = [_min_max(np.array(scaled, dtype=np.float64)), np.array(shares)]
    return np.concatenate(columns, axis=1).astype(np.float32)


def budget_features(
    limits: NDArray[np.float64],
    spent: NDArray[np.float64],
    narrowest: NDArray[np.float64],
    uniform: NDArray[np.float64],
    widest: NDArray[np.float64],
) -> NDArray[np.float32]:
    """State of the budgets, see :data:`BUDGET_FEATURES`.

    Args:
        limits: Limits of the budgets, float64 [B].
        spent: Known costs of the groups decided, float64 [N, B].
        narrowest: Total cost if the rest takes its minimum width, float64 [N, B].
        uniform: Total cost if the rest is uniform, float64 [N, B].
        widest: Total cost if the rest keeps its full width, float64 [N, B].

    Returns:
        float32 [N, B * len(BUDGET_FEATURES)] in [-1, 1]; what is not known (NaN) is 0.
    """
    features = np.stack(
        [
            np.broadcast_to(limits, spent.shape),
            spent,
            uniform - spent,
            1.0 - widest,
            widest - narrowest,
            limits - uniform,
        ],
        axis=-1,
    )
    bounded = np.clip(np.nan_to_num(features, nan=0.0), -1.0, 1.0)
    return bounded.reshape(len(spent), -1).astype(np.float32)


def _touching(
    structure: Structure, group: int, side: Callable[[LayerInfo], tuple[tuple[int, int], ...]]
) -> list[LayerInfo]:
    return [layer for layer in structure.layers if any(index == group for index, _ in side(layer))]


def _channels(layer: LayerInfo, dense: NDArray[np.int64]) -> float:
    return float(layer.fixed_inputs + sum(unit * dense[group] for group, unit in layer.inputs))


def _largest(layers: list[LayerInfo], value: Callable[[LayerInfo], float]) -> float:
    return max((value(layer) for layer in layers), default=1.0)


def _min_max(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = values.min(axis=0), values.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    return np.asarray((values - low) / span)
