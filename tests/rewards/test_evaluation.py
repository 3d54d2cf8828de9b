"""The evaluation: what it accepts, and its round trip through a table."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.errors import EvaluationError
from prunetune.rewards import Evaluation

NAMES = st.text("abcdefgh-", min_size=1, max_size=8)


@settings(deadline=None)
@given(
    candidate=st.lists(st.integers(0, 4096), max_size=9),
    measures=st.dictionaries(NAMES, st.floats(allow_nan=False), max_size=4),
    costs=st.dictionaries(NAMES, st.floats(0, 1), max_size=4),
    seconds=st.floats(0, 1e6),
    error=st.none() | st.text(max_size=20),
    standard_errors=st.dictionaries(NAMES, st.floats(0, 1), max_size=4),
)
def test_row_round_trip_through_arrow(
    candidate: list[int],
    measures: dict[str, float],
    costs: dict[str, float],
    seconds: float,
    error: str | None,
    standard_errors: dict[str, float],
) -> None:
    evaluation = Evaluation(tuple(candidate), measures, costs, seconds, error, standard_errors)

    assert Evaluation.from_row(evaluation.to_row()) == evaluation
    row = pa.Table.from_pylist([evaluation.to_row()]).to_pylist()[0]
    assert Evaluation.from_row(row) == evaluation
    assert pickle.loads(pickle.dumps(evaluation)) == evaluation


def test_not_a_number_survives_and_null_means_absent() -> None:
    rows = [
        Evaluation((1,), {"loss": math.nan}, {"flops": 0.5}).to_row(),
        Evaluation((2,), {"accuracy": math.inf}, {}, error="broke").to_row(),
    ]
    columns = {name for row in rows for name in row}
    table = pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows])

    first, second = (Evaluation.from_row(row) for row in table.to_pylist())

    assert list(first.measures) == ["loss"]
    assert math.isnan(first.measures["loss"])
    assert second == Evaluation((2,), {"accuracy": math.inf}, {}, error="broke")


def test_numpy_numbers_become_plain_ones() -> None:
    evaluation = Evaluation(
        tuple(np.array([3, 4])), {"loss": np.float32(0.5)}, {"flops": np.float64(0.25)}
    )

    assert [type(width) for width in evaluation.candidate] == [int, int]
    assert type(evaluation.measures["loss"]) is float
    assert type(evaluation.costs["flops"]) is float


def test_later_changes_to_what_was_passed_in_do_not_show() -> None:
    measures = {"accuracy": 0.5}
    evaluation = Evaluation((1,), measures)
    measures["accuracy"] = 0.9

    assert evaluation.measures == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"candidate": (-1,)}, "at least 0"),
        ({"candidate": (True,)}, "whole number"),
        ({"candidate": (1.5,)}, "whole number"),
        ({"measures": {"accuracy": "high"}}, "'accuracy' must be a number"),
        ({"measures": {"accuracy": True}}, "'accuracy' must be a number"),
        ({"measures": {"": 1.0}}, "non-empty"),
        ({"costs": {"flops": -0.1}}, "'flops' must be finite"),
        ({"costs": {"flops": math.nan}}, "'flops' must be finite"),
        ({"seconds": math.inf}, "'seconds' must be finite"),
        ({"error": 3}, "text or None"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        Evaluation(**{"candidate": (1,), **wrong})


def test_row_without_widths_is_refused() -> None:
    with pytest.raises(EvaluationError, match="candidate"):
        Evaluation.from_row({"seconds": 1.0})
