"""The comparison table: reward x budget x agent, over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ..._text import plain_cell
from ..run.files import write_durably
from ..run.summary import Best
from .fidelity import Fidelity
from .results import FLOPS_NOTE, Results, budget_text, delivered_accuracy, number
from .significance import Estimate, Verdict, compare_paired, estimate_median

__all__ = [
    "FIDELITY_HEADINGS",
    "HEADINGS",
    "ComparisonRow",
    "Judgement",
    "comparison_rows",
    "displayed",
    "displayed_fidelity",
    "judgements",
    "write_fidelities",
    "write_tables",
]

HEADINGS = (
    "reward",
    "budget",
    "agent",
    "seeds",
    "test accuracy",
    "to dense",
    "before fine-tuning",
    "FLOPs",
    "params",
    "evaluations",
)
"""Columns of the table that people read."""

FIDELITY_HEADINGS = ("reward", "budget", "candidates", "rank correlation")
"""Columns of the table of reward fidelity."""


@dataclass(frozen=True)
class ComparisonRow:
    """One cell of a comparison's grid; accuracies and fractions in [0, 1].

    Attributes:
        reward: What was maximised.
        budget: Limit by cost.
        agent: What proposed candidates.
        seeds: Number of trials.
        feasible: How many of them found a candidate that keeps every budget.
        stopped: How many of them were stopped as hopeless.
        test_after: Test accuracy after fine-tuning (as delivered, where there was none).
        test_before: Test accuracy before fine-tuning.
        validation: Accuracy on the validation images.
        flops_fraction: Of the dense network's FLOPs.
        params_fraction: Of the dense network's parameters.
        flops: 2 x multiply-accumulates at batch 1.
        params: Number of parameters.
        evaluations: Candidates asked for by a trial.
    """

    reward: str
    budget: Mapping[str, float | str]
    agent: str
    seeds: int
    feasible: int
    stopped: int
    test_after: Estimate
    test_before: Estimate
    validation: Estimate
    flops_fraction: Estimate
    params_fraction: Estimate
    flops: Estimate
    params: Estimate
    evaluations: Estimate


def comparison_rows(results: Results) -> tuple[ComparisonRow, ...]:
    """Compute the table's rows, in the order in which their trials were begun.

    Only feasible candidates enter the medians: what breaks a budget has no accuracy at it.
    """
    grouped: dict[tuple[str, str, str], list[Best]] = {}
    for best in results.bests:
        grouped.setdefault((budget_text(best.budget), best.reward, best.agent), []).append(best)
    order = list(dict.fromkeys(key[0] for key in grouped))
    keys = sorted(grouped, key=lambda key: order.index(key[0]))
    return tuple(_row(grouped[key], results) for key in keys)


def _row(bests: Sequence[Best], results: Results) -> ComparisonRow:
    kept = [best for best in bests if best.feasible]

    def median(value: Callable[[Best], float]) -> Estimate:
        return estimate_median([value(best) for best in kept])

    return ComparisonRow(
        reward=bests[0].reward,
        budget=bests[0].budget,
        agent=bests[0].agent,
        seeds=len(bests),
        feasible=len(kept),
        stopped=sum(best.stopped for best in bests),
        test_after=median(delivered_accuracy),
        test_before=median(lambda best: number(best.test_before)),
        validation=median(lambda best: number(best.validation)),
        flops_fraction=median(lambda best: number(best.flops) / results.dense.flops),
        params_fraction=median(lambda best: number(best.params) / results.dense.params),
        flops=median(lambda best: number(best.flops)),
        params=median(lambda best: number(best.params)),
        evaluations=estimate_median([float(best.evaluations) for best in bests]),
    )


def displayed(row: ComparisonRow, results: Results) -> tuple[str, ...]:
    """Write the texts of a row, one per heading."""
    notes = [f"{row.feasible} feasible"] if row.feasible < row.seeds else []
    notes += [f"{row.stopped} stopped early"] if row.stopped else []
    seeds = f"{row.seeds} ({', '.join(notes)})" if notes else str(row.seeds)
    gap = 100 * (row.test_after.median - number(results.dense.test))
    return (
        row.reward,
        budget_text(row.budget),
        row.agent,
        seeds,
        _percent(row.test_after),
        f"{gap:+.2f}" if math.isfinite(gap) else "-",
        _percent(row.test_before),
        _amount(row.flops, row.flops_fraction),
        _amount(row.params, row.params_fraction),
        f"{row.evaluations.median:.0f}",
    )


def _percent(estimate: Estimate) -> str:
    if not estimate.count:
        return "-"
    text = f"{100 * estimate.median:.2f} %"
    if estimate.low is not None and estimate.high is not None:
        text += f" [{100 * estimate.low:.2f}, {100 * estimate.high:.2f}]"
    return text


def _amount(absolute: Estimate, fraction: Estimate) -> str:
    if not absolute.count:
        return "-"
    return f"{short_count(absolute.median)} ({100 * fraction.median:.1f} %)"


def short_count(value: float) -> str:
    """Write a large number with its unit, for example ``40.6M``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


@dataclass(frozen=True)
class Judgement:
    """One reward against another at the same budget and agent.

    Attributes:
        budget: Limit by cost.
        agent: What proposed candidates.
        sentence: The verdict in plain language.
        verdict: Its numbers.
    """

    budget: Mapping[str, float | str]
    agent: str
    sentence: str
    verdict: Verdict


def judgements(results: Results) -> tuple[Judgement, ...]:
    """Compare rewards with ``accuracy`` (or else the first one), at equal budgets and agents."""
    cells: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    budgets: dict[str, Mapping[str, float | str]] = {}
    for best in results.bests:
        text = budget_text(best.budget)
        budgets[text] = best.budget
        seeds = cells.setdefault((text, best.agent), {}).setdefault(best.reward, {})
        if best.feasible:
            seeds[best.seed] = delivered_accuracy(best)
    found = []
    for (text, agent), rewards in cells.items():
        reference = "accuracy" if "accuracy" in rewards else next(iter(rewards))
        for reward in rewards:
            if reward != reference:
                verdict = compare_paired(rewards[reward], rewards[reference])
                sentence = verdict.sentence(reward, reference)
                found.append(Judgement(budgets[text], agent, sentence, verdict))
    return tuple(found)


def displayed_fidelity(fidelity: Fidelity) -> tuple[str, ...]:
    """Write the texts of a row, one per heading of ``FIDELITY_HEADINGS``."""
    text = "-"
    if math.isfinite(fidelity.correlation):
        text = f"{fidelity.correlation:+.2f}"
    if fidelity.low is not None and fidelity.high is not None:
        text += f" [{fidelity.low:+.2f}, {fidelity.high:+.2f}]"
    name = fidelity.reward if fidelity.compared else f"{fidelity.reward} (not searched with)"
    return name, fidelity.budget, str(fidelity.candidates), text


def write_fidelities(fidelities: Sequence[Fidelity], folder: Path) -> tuple[Path, Path]:
    """Write ``fidelity.csv`` and ``fidelity.parquet``: one row per reward and budget."""
    kinds = {
        "reward": pa.string(),
        "compared": pa.bool_(),
        "budget": pa.string(),
        "candidates": pa.int64(),
        "correlation": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
    }
    arrays = {
        name: pa.array([getattr(each, name) for each in fidelities], kind, from_pandas=True)
        for name, kind in kinds.items()
    }
    return _write(pa.table(arrays), folder, "fidelity")


def write_tables(rows: Sequence[ComparisonRow], folder: Path) -> tuple[Path, Path]:
    """Write ``comparison.csv`` and ``comparison.parquet``: one row per cell of the grid.

    Every number has three columns, ``NAME``, ``NAME.low`` and ``NAME.high``; accuracies are
    fractions.
    """
    # The name carries the note, since a CSV file has nowhere else to say it.
    names = {"flops": "flops_2x_macs_batch_1"}
    columns: dict[str, list[object]] = {}
    for row in rows:
        values: dict[str, object] = {
            "reward": row.reward,
            "budget": budget_text(row.budget),
            "agent": row.agent,
            "seeds": row.seeds,
            "feasible": row.feasible,
            "stopped": row.stopped,
        }
        for field, estimate in vars(row).items():
            if isinstance(estimate, Estimate):
                name = names.get(field, field)
                values[name] = estimate.median if estimate.count else None
                values[f"{name}.low"] = estimate.low
                values[f"{name}.high"] = estimate.high
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    texts = ("reward", "budget", "agent")
    counts = ("seeds", "feasible", "stopped")
    arrays = {
        name: pa.array(
            values,
            pa.string() if name in texts else pa.int64() if name in counts else pa.float64(),
        )
        for name, values in columns.items()
    }
    table = pa.table(arrays).replace_schema_metadata({"note": FLOPS_NOTE})
    return _write(table, folder, "comparison")


def _write(table: pa.Table, folder: Path, name: str) -> tuple[Path, Path]:
    """Write both files, in place of what is there, even of a link to somewhere else."""
    csv, parquet = folder / f"{name}.csv", folder / f"{name}.parquet"
    for path, sink, write in (
        (csv, pa.BufferOutputStream(), _write_csv),
        (parquet, pa.BufferOutputStream(), pq.write_table),
    ):
        write(table, sink)
        write_durably(path, sink.getvalue().to_pybytes())
    return csv, parquet


def _write_csv(table: pa.Table, sink: pa.BufferOutputStream) -> None:
    """Write texts as texts: a spreadsheet would compute what looks like a formula."""
    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            texts = [plain_cell(text) for text in table.column(index).to_pylist()]
            table = table.set_column(index, field, pa.array(texts, pa.string()))
    pa_csv.write_csv(table, sink)
