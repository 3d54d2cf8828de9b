"""The latency table: interpolation, fit, cache; never a statement about a clock."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from prunetune.models import PruningTask
from prunetune.models.calls import count_flops
from prunetune.models.costs import latency_measuring
from prunetune.models.costs.latency import LatencyTable
from prunetune.models.costs.latency_measuring import fit_latency
from prunetune.models.coupling import trace_channel_groups
from torch import nn


def test_seconds_are_interpolated_in_both_directions() -> None:
    table = LatencyTable(((0, 10, 20),), ((0, 4, 8),), (((0, 1, 2), (2, 3, 4), (9, 9, 9)),), 1.0, 0)
    inputs, outputs = np.array([[0], [10], [5], [15]]), np.array([[0], [4], [2], [8]])
    expected = [[0.0], [3.0], [1.5], [6.5]]
    np.testing.assert_allclose(table.layers(inputs, outputs), expected)
    # Beyond what was measured nothing is extrapolated.
    np.testing.assert_allclose(table.layers(np.array([[99]]), np.array([[99]])), [[9.0]])


def test_a_side_that_nothing_decides_has_equal_knots() -> None:
    table = LatencyTable(((3, 3, 3),), ((1, 4, 8),), (((1, 2, 3),) * 3,), 0.0, 0.0)
    np.testing.assert_allclose(table.layers(np.array([[3]]), np.array([[6]])), [[2.5]])


def test_the_fit_finds_a_clock_that_is_linear_in_multiplications(
    digits_task: PruningTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock of 1 ns a FLOP plus 1 ms a network, the table finds both."""
    groups = trace_channel_groups(digits_task.network, digits_task.example_input)

    def clock(network: nn.Module, image: object, seconds: float = 0.0) -> float:
        overhead = 1e-3 if any(True for _ in network.children()) else 0.0
        return overhead + count_flops(network, image) * 1e-9  # type: ignore[arg-type]

    monkeypatch.setattr(latency_measuring, "measure_latency", clock)
    table = latency_measuring._fit(digits_task.network, digits_task.example_input, groups)
    structure = groups.structure
    assert table.constant == pytest.approx(1e-3, rel=0.05)
    assert table.error < 0.05
    widths = np.array([groups.sizes, [max(1, size // 3) for size in groups.sizes]])
    seconds = table.layers(*structure.channels(widths)).sum(axis=1) + table.constant
    np.testing.assert_allclose(seconds, 1e-3 + structure.flops(widths) * 1e-9, rtol=0.1)


def test_a_table_is_measured_once(
    digits_task: PruningTask, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = trace_channel_groups(digits_task.network, digits_task.example_input)
    monkeypatch.setattr(latency_measuring, "_LAYER_SECONDS", 1e-4)
    table = fit_latency(digits_task, groups)
    assert table == LatencyTable.from_dict(json.loads(json.dumps(table.to_dict())))
    assert (np.diff(np.array(table.seconds), axis=1) >= 0).all()
    assert (np.diff(np.array(table.seconds), axis=2) >= 0).all()
    monkeypatch.setattr(
        latency_measuring, "measure_latency", lambda *_: pytest.fail("measured again")
    )
    assert fit_latency(digits_task, groups) == table
