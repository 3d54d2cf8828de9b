"""A trial's history: the candidates it asked for, in order, with what it made of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import RunFolderError
from .columns import CANDIDATE, marked, read_columns
from .files import read_content, write_durably

_COST_PREFIX = "costs."
_KINDS = {
    "candidate": CANDIDATE,
    "reward": pa.float64(),
    "feasible": pa.bool_(),
    "evaluations_before": pa.int64(),
}
# Parquet's own checksums are off, and would leave out its metadata.
_MARK = b"prunetune.crc32"
_NAME = re.compile(r"[0-9]{6,9}")


@dataclass(frozen=True)
class Asked:
    """One candidate that a trial asked for.

    Attributes:
        candidate: One whole number per decision.
        reward: The trial's reward, higher is better; not-a-number where the evaluation failed.
        costs: Fractions of the dense network's cost.
        feasible: Whether every budget is kept; where budgets are ranges, at the limit that the
            candidate was asked for.
        evaluations_before: Candidates the trial had asked for before this one.
    """

    candidate: tuple[int, ...]
    reward: float
    costs: Mapping[str, float]
    feasible: bool
    evaluations_before: int

    def keeps(self, limits: Mapping[str, float]) -> bool:
        """Whether it was evaluated and costs no more than these fractions of dense."""
        costs = self.costs
        return math.isfinite(self.reward) and all(costs[c] <= x for c, x in limits.items())


class TrialHistory:
    """The history of one trial, one file per iteration.

    Repeating an iteration after a restore overwrites its file, so the history is always that of
    the trial as if it had never been interrupted.

    Args:
        folder: ``RUN/histories/TRIAL``; made by the first `write`.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def write(self, iteration: int, asked: Sequence[Asked]) -> None:
        """Keep the candidates of an iteration, replacing what was there for it.

        Args:
            iteration: 0 or more.
            asked: In the order they were asked for.

        Raises:
            RunFolderError: If they cannot be written.
        """
        names = sorted({name for candidate in asked for name in candidate.costs})
        table = pa.table(
            {
                "candidate": pa.array([c.candidate for c in asked], CANDIDATE),
                "reward": pa.array([c.reward for c in asked], pa.float64()),
                "feasible": pa.array([c.feasible for c in asked], pa.bool_()),
                "evaluations_before": pa.array([c.evaluations_before for c in asked], pa.int64()),
                **{
                    _COST_PREFIX + name: pa.array([c.costs.get(name) for c in asked], pa.float64())
                    for name in names
                },
            }
        )
        sink = pa.BufferOutputStream()
        pq.write_table(marked(table, _MARK), sink)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_durably(self._path(iteration), sink.getvalue().to_pybytes())
        except OSError as error:
            raise RunFolderError(
                f"The history in {self.folder} cannot be written ({error.strerror or error}); free "
                "space or make the run folder writable, and resume the run."
            ) from error

    def iterations(self) -> list[int]:
        """The iterations that are there, ascending."""
        if not self.folder.is_dir():
            return []
        names = (path.stem for path in self.folder.glob("*.parquet"))
        return sorted(int(name) for name in names if _NAME.fullmatch(name))

    def load(self) -> list[Asked]:
        """Every candidate, in the order they were asked for.

        Raises:
            RunFolderError: If a file is damaged; the message names it.
        """
        asked: list[Asked] = []
        for iteration in self.iterations():
            path = self._path(iteration)
            try:
                table = read_columns(read_content(path), _KINDS, (_COST_PREFIX,), _MARK)
            except (ValueError, FileNotFoundError) as error:
                raise RunFolderError(
                    f"The history {path} cannot be read ({error}); restore it from a copy."
                ) from error
            asked.extend(_candidate(row) for row in table.to_pylist())
        return asked

    def drop_after(self, iteration: int) -> None:
        """Forget the iterations beyond the one that a trial was restored to.

        Args:
            iteration: The last to keep; -1 forgets all.
        """
        for later in self.iterations():
            if later > iteration:
                self._path(later).unlink(missing_ok=True)

    def _path(self, iteration: int) -> Path:
        if iteration < 0:
            raise ValueError(f"an iteration is 0 or more, not {iteration}")
        return self.folder / f"{iteration:06d}.parquet"


def pick_finalists(
    history: Sequence[Asked], count: int, limits: Mapping[str, float] | None = None
) -> list[Asked]:
    """The best feasible candidates of a trial.

    Args:
        history: What it asked for, in order.
        count: How many at most.
        limits: What they must keep, as fractions of dense by cost, whatever they were asked for;
            the budgets of the trial when left out.

    Returns:
        Different candidates by falling reward; of equal rewards the one asked for first.
    """
    first: dict[tuple[int, ...], Asked] = {}
    for candidate in history:
        if candidate.feasible if limits is None else candidate.keeps(limits):
            first.setdefault(candidate.candidate, candidate)
    return sorted(first.values(), key=lambda candidate: -candidate.reward)[:count]


def _candidate(row: Mapping[str, Any]) -> Asked:
    costs = {
        name.removeprefix(_COST_PREFIX): value
        for name, value in row.items()
        if name not in _KINDS and value is not None
    }
    known = {name: row[name] for name in _KINDS}
    return Asked(**{**known, "candidate": tuple(row["candidate"])}, costs=costs)
