"""The results of a run as a handle: its networks, its candidates, its report."""

from __future__ import annotations

import html
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._live import is_live, live_name
from ...errors import RunFolderError
from ..report.results import budget_text, delivered_accuracy, load_results
from ..run.folder import RunFolder
from ..run.summary import Best, Summary

if TYPE_CHECKING:
    import pandas
    from torch import nn

    from ...models.artifact import Artifact

__all__ = ["PrunedNetwork", "Run"]


class PrunedNetwork:
    """What one search of a run delivered.

    Attributes:
        description: All that ``summary.json`` says of it.
    """

    def __init__(self, run: Run, description: Best) -> None:
        self._run = run
        self.description = description
        self._loaded: Artifact | None = None

    @property
    def trial(self) -> str:
        """Name of its search, unique in the run."""
        return self.description.trial

    @property
    def candidate(self) -> tuple[int, ...] | None:
        """One whole number per decision; None where no candidate kept the budgets."""
        return self.description.candidate

    @property
    def widths(self) -> dict[str, int]:
        """Units kept of every channel group, by name."""
        groups = self._run.summary.dense.groups
        return dict(zip(groups, self._whole().candidate or (), strict=False))

    @property
    def costs(self) -> dict[str, float]:
        """Costs as fractions of the dense network's, by name."""
        return _for_people(self._whole().costs or {})

    @property
    def accuracy(self) -> float:
        """On the test images, fraction, of the network as delivered; nan without a network."""
        return delivered_accuracy(self.description)

    @property
    def validation_accuracy(self) -> float:
        """On the validation images, fraction, of the network as delivered."""
        after, before = self.description.validation_after, self.description.validation
        value = before if after is None else after
        return math.nan if value is None else value

    @property
    def feasible(self) -> bool:
        """Whether it keeps every budget."""
        return self.description.feasible

    @property
    def folder(self) -> Path:
        """Its artifact.

        Raises:
            RunFolderError: If the search delivered no network; says why.
        """
        artifact = self._whole().artifact
        assert artifact is not None
        return self._run.folder / artifact

    @property
    def network(self) -> nn.Module:
        """The slim network, float32, on the CPU, in evaluation mode; the same object every time.

        Raises:
            PruneTuneError: If there is none, the dense one of a Python session is needed, or a file
                of the user's own would have to be run and the run was opened without ``trust``.
        """
        if self._loaded is None:
            from ...models.artifact import load_artifact

            self._loaded = load_artifact(self.folder, trust=self._run.trust)
        return self._loaded.network

    def save(self, folder: Path | str) -> Path:
        """Copy the artifact, for `prunetune.load` and ``prunetune verify``.

        Args:
            folder: Must not exist, or be empty.

        Raises:
            RunFolderError: If something is there already, or it cannot be written.
        """
        target = Path(folder).expanduser()
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise RunFolderError(f"There is something at {target} already; choose another folder.")
        try:
            shutil.copytree(self.folder, target, dirs_exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"The folder {target} cannot be written: {error}.") from error
        return target

    def _whole(self) -> Best:
        if self.description.artifact is None:
            reason = self.description.error or "the run has not finished it"
            raise RunFolderError(f"The search {self.trial} has no network: {reason}")
        return self.description

    def _cells(self) -> dict[str, str]:
        best = self.description
        costs = _for_people(best.costs or {})
        return {
            "search": best.trial,
            "budgets": budget_text(best.budget),
            **{name: f"{100 * value:.1f} %" for name, value in costs.items()},
            "test accuracy": _percent(self.accuracy),
            "": best.error or "",
        }

    def __repr__(self) -> str:
        return f"PrunedNetwork({', '.join(f'{k} {v}' for k, v in self._cells().items() if v)})"

    def _repr_html_(self) -> str:
        return _table([self._cells()])


class Run:
    """A run's folder, seen from Python; finished, interrupted or still running.

    Args:
        folder: Where everything is.
        trust: Whether a file or module that built its dense network may be run to load networks.

    Attributes:
        folder: Where everything is.
        trust: As given.
    """

    def __init__(self, folder: Path | str, trust: bool = False) -> None:
        self._folder = RunFolder.open(folder)
        self.folder = self._folder.path
        self.trust = trust
        self._networks: dict[str, PrunedNetwork] = {}

    @property
    def summary(self) -> Summary:
        """What ``summary.json`` says now."""
        from ..run.summary import read_summary

        summary = read_summary(self._folder)
        if summary is None:
            raise RunFolderError(
                f"The run {self.folder} has no results yet; continue it with prunetune.resume."
            )
        return summary

    @property
    def bests(self) -> tuple[PrunedNetwork, ...]:
        """What every search delivered, in the order of the comparison."""
        for best in self.summary.best:
            known = self._networks.get(best.trial)
            if known is None or known.description != best:
                self._networks[best.trial] = PrunedNetwork(self, best)
        return tuple(self._networks[best.trial] for best in self.summary.best)

    @property
    def best(self) -> PrunedNetwork:
        """What the run's only search delivered.

        Raises:
            RunFolderError: If there are several searches, or nothing yet.
        """
        bests = self.bests
        if len(bests) != 1:
            raise RunFolderError(
                f"The run {self.folder} has {len(bests)} networks; choose among run.bests."
                if bests
                else f"The run {self.folder} has no network yet; continue it with prunetune.resume."
            )
        return bests[0]

    def frame(self) -> pandas.DataFrame:
        """Every candidate that was asked for, one row each, in the order of the asking.

        Returns:
            Columns: ``trial``, ``candidate``, ``reward``, ``feasible``, every cost as a fraction
            of dense and every measure by name, ``seconds``.
        """
        import pandas

        return pandas.DataFrame(list(self._rows()))

    def report(self) -> Path:
        """Write ``report/index.html`` with its pictures and tables; returns its path."""
        from ..report import write_report

        return write_report(self.folder)[0]

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        results = load_results(self._folder)
        for trial, asked in results.histories.items():
            for each in asked:
                evaluation = results.evaluations.get(each.candidate)
                yield {
                    "trial": trial,
                    "candidate": each.candidate,
                    "reward": each.reward,
                    "feasible": each.feasible,
                    **({} if evaluation is None else evaluation.measures),
                    **_for_people(each.costs),
                    "seconds": math.nan if evaluation is None else evaluation.seconds,
                }

    def __repr__(self) -> str:
        summary = self.summary
        lines = [f"Run({str(self.folder)!r}): {summary.status}, {summary.task}"]
        return "\n".join([*lines, *(f"  {best!r}" for best in self.bests)])

    def _repr_html_(self) -> str:
        summary = self.summary
        dense = f"dense test accuracy {_percent(summary.dense.test)}"
        title = html.escape(f"{self.folder} ({summary.status}): {summary.task}, {dense}")
        return f"<p>{title}</p>{_table([best._cells() for best in self.bests])}"


def _percent(share: float | None) -> str:
    return "" if share is None or math.isnan(share) else f"{100 * share:.2f} %"


def _table(rows: list[dict[str, str]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    cells = (
        "".join(f"<td>{html.escape(row.get(name, ''))}</td>" for name in columns) for row in rows
    )
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{each}</tr>' for each in cells)}</table>"


def _for_people(costs: Mapping[str, float]) -> dict[str, float]:
    """Costs by names that a notebook can be written with."""
    return {live_name(name) if is_live(name) else name: value for name, value in costs.items()}
