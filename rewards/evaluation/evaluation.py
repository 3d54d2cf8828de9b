"""The evaluation: all measures and costs of one candidate, computed once and shared by rewards."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import EvaluationError
from ...models.space import Candidate

__all__ = ["COLUMN_PREFIXES", "Evaluation"]

_MEASURE_PREFIX = "measures."
_COST_PREFIX = "costs."
_ERROR_PREFIX = "standard_errors."

COLUMN_PREFIXES = (_MEASURE_PREFIX, _COST_PREFIX, _ERROR_PREFIX)
"""What the names of an evaluation's columns begin with in a table."""


@dataclass(frozen=True)
class Evaluation:
    """What is known of one candidate; it does not depend on any reward.

    Attributes:
        candidate: One whole number per decision, each at least 0.
        measures: One float per measure column. Not-a-number and infinities are kept as they are,
            because a diverged candidate is a finding; ``score`` refuses them.
        costs: Fractions of the dense network's cost, finite and at least 0; where the dense
            network costs nothing, the cost itself.
        seconds: Wall-clock seconds that the evaluation took, at least 0.
        error: Why the candidate could not be evaluated, or ``None``.
        standard_errors: Of the measures that are estimates from a sample of the validation images,
            against their values on all of these; empty where all are evaluated.

    Raises:
        EvaluationError: If a value is of the wrong kind or out of range.
    """

    candidate: Candidate
    measures: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None
    standard_errors: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "candidate", tuple(_whole(value) for value in self.candidate))
        set_field(self, "measures", {k: _real("measure", k, v) for k, v in self.measures.items()})
        set_field(self, "costs", {k: _amount("cost", k, v) for k, v in self.costs.items()})
        set_field(self, "seconds", _amount("duration", "seconds", self.seconds))
        errors = {k: _real("standard error", k, v) for k, v in self.standard_errors.items()}
        set_field(self, "standard_errors", errors)
        if self.error is not None and not isinstance(self.error, str):
            raise EvaluationError(
                f"An evaluation's error must be text or None, not {self.error!r}."
            )

    def to_row(self) -> dict[str, Any]:
        """One flat table row of plain Python values.

        Returns:
            ``candidate`` (list of int), ``seconds``, ``error``, and one column
            ``measures.NAME``, ``costs.NAME`` or ``standard_errors.NAME`` per number.
        """
        row: dict[str, Any] = {
            "candidate": list(self.candidate),
            "seconds": self.seconds,
            "error": self.error,
        }
        row.update({_MEASURE_PREFIX + name: value for name, value in self.measures.items()})
        row.update({_COST_PREFIX + name: value for name, value in self.costs.items()})
        row.update({_ERROR_PREFIX + name: value for name, value in self.standard_errors.items()})
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Evaluation:
        """The inverse of :meth:`to_row`.

        Args:
            row: A row, perhaps of a table with more columns. ``None`` means that the evaluation
                lacks that column, not-a-number that its value is not a number.

        Raises:
            EvaluationError: If the row is not one of an evaluation.
        """
        try:
            candidate, seconds = row["candidate"], row["seconds"]
        except KeyError as missing:
            raise EvaluationError(
                f"A recorded evaluation lacks the column {missing}; the record is damaged or was "
                "written by another program."
            ) from None
        return cls(
            candidate=tuple(candidate),
            measures=_columns(row, _MEASURE_PREFIX),
            costs=_columns(row, _COST_PREFIX),
            seconds=seconds,
            error=row.get("error"),
            standard_errors=_columns(row, _ERROR_PREFIX),
        )


def _columns(row: Mapping[str, Any], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): value
        for name, value in row.items()
        if name.startswith(prefix) and value is not None
    }


def _whole(value: object) -> int:
    # numbers.Integral covers NumPy's integers; bool is one too, but True is no whole number.
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise EvaluationError(
            f"A candidate consists of whole numbers of at least 0, not of {value!r}."
        )
    return int(value)


def _real(kind: str, name: object, value: object) -> float:
    if not isinstance(name, str) or not name:
        raise EvaluationError(f"The name of a {kind} must be non-empty text, not {name!r}.")
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise EvaluationError(f"The {kind} {name!r} must be a number, not {value!r}.")
    return float(value)


def _amount(kind: str, name: object, value: object) -> float:
    amount = _real(kind, name, value)
    if not math.isfinite(amount) or amount < 0:
        raise EvaluationError(f"The {kind} {name!r} must be finite and not negative, got {amount}.")
    return amount
