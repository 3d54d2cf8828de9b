"""The report: its statistics against closed forms, its files from a run folder alone."""

from __future__ import annotations

import html.parser
import json
import math
import re
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prunetune.errors import RunFolderError
from prunetune.rewards import Evaluation
from prunetune.search.history import AskedCandidate, TrialHistory
from prunetune.search.record import EvaluationRecord, RecordKey
from prunetune.search.report import comparison_rows, judgements, load_results, write_report
from prunetune.search.report.figures import pareto_front
from prunetune.search.report.statistics import compare_paired, estimate_median
from prunetune.search.run_folder import RunFolder

_GROUPS = {"stem": 4, "block": 8}


def _trial(reward: str, limit: float, seed: int, after: float) -> dict[str, object]:
    return {
        "trial": f"{reward}-{limit}-{seed}",
        "reward": reward,
        "budget": {"flops": limit},
        "agent": "random",
        "seed": seed,
        "feasible": True,
        "widths": [2, 3],
        "costs": {"flops": limit - 0.01, "params": 0.4},
        "flops": int(1e6 * (limit - 0.01)),
        "params": 40_000,
        "validation": 0.9,
        "test_before": after - 0.05,
        "test_after": after,
        "evaluations": 32,
        "feasible_candidates": 20,
        "artifact": f"best/{reward}-{limit}-{seed}",
    }


def _write_run(path: Path, trials: list[dict[str, object]]) -> RunFolder:
    run = RunFolder.create(path, {"name": "a <b> run", "task": {"model": "digits-net"}})
    record = EvaluationRecord(run.evaluations, RecordKey("t", "e", "fp32", "quick"))
    rng = np.random.default_rng(0)
    widths = [(int(a), int(b)) for a in range(1, 5) for b in range(1, 9)]
    record.append(
        [
            Evaluation(
                each,
                {"accuracy": float(0.5 + 0.4 * rng.random())},
                {"flops": each[0] * each[1] / 32, "params": each[1] / 8},
            )
            for each in widths
        ]
    )
    for trial in trials:
        history = TrialHistory(run.histories / str(trial["trial"]))
        for iteration in range(2):
            asked = [
                AskedCandidate(
                    each,
                    float(rng.random()),
                    {"flops": each[0] * each[1] / 32},
                    each[0] * each[1] <= 16,
                    16 * iteration + index,
                )
                for index, each in enumerate(widths[16 * iteration : 16 * (iteration + 1)])
            ]
            history.write(iteration, asked)
    run.update_summary(
        name="a <b> run",
        status="finished",
        task="digits-net on digits",
        criterion="l1",
        repair="quick",
        precision="fp32",
        best=trials,
        evaluations={"asked": 37, "unique": 32, "cached": 5, "failed": 0, "per_second": 9.0},
        wall_seconds=12.5,
        dense={
            "test": 0.97,
            "validation": 0.96,
            "flops": 1_000_000,
            "params": 100_000,
            "groups": _GROUPS,
        },
    )
    return run


class _Page(html.parser.HTMLParser):
    """What a browser would find: ids, links, sources, and whether tags close."""

    _VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.alternatives: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in self._VOID:
            self.open.append(tag)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        self.targets += [str(found[key]) for key in ("href", "src") if key in found]
        if tag == "img":
            self.alternatives.append(found.get("alt"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_is_complete_and_self_contained(tmp_path: Path) -> None:
    trials = [
        _trial(reward, limit, seed, 0.95 + 0.001 * seed)
        for reward in ("accuracy", "spatial-entropy")
        for limit in (0.5, 0.3)
        for seed in range(3)
    ]
    run = _write_run(tmp_path / "run", trials)
    moved = tmp_path / "elsewhere"
    run.path.rename(moved)
    page, _ = write_report(moved)
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "accuracy_vs_flops.png",
        "comparison.csv",
        "comparison.parquet",
        "index.html",
    ]
    text = page.read_text()
    parsed = _Page(text)
    assert not parsed.open
    assert len(set(parsed.ids)) == len(parsed.ids)
    for target in parsed.targets:
        if target.startswith("#"):
            assert target[1:] in parsed.ids
        elif not target.startswith("data:"):
            assert (page.parent / target).is_file()
    assert len(parsed.alternatives) >= 4
    assert all(parsed.alternatives)
    assert "a &lt;b&gt; run" in text and "<b> run" not in text
    captions = re.findall(r"<caption>(.*?)</caption>", text)
    assert captions and all("2 x multiply-accumulates" in caption for caption in captions)


def test_tables_hold_what_the_summary_says(tmp_path: Path) -> None:
    accuracies = [0.90, 0.95, 0.91]
    trials = [_trial("accuracy", 0.5, seed, value) for seed, value in enumerate(accuracies)]
    trials.append({**_trial("accuracy", 0.5, 3, 0.2), "feasible": False})
    run = _write_run(tmp_path / "run", trials)
    write_report(run.path)
    table = pq.read_table(run.report / "comparison.parquet")
    (row,) = table.to_pylist()
    assert row["test_after"] == pytest.approx(0.91)
    assert row["test_before"] == pytest.approx(0.86)
    assert row["seeds"] == 4 and row["feasible"] == 3
    assert row["flops_2x_macs_batch_1"] == pytest.approx(0.49e6)
    assert row["flops_fraction"] == pytest.approx(0.49)
    assert min(accuracies) <= row["test_after.low"] <= 0.91 <= row["test_after.high"] <= 0.95
    assert pa_csv.read_csv(run.report / "comparison.csv").column_names == table.column_names


def test_multipliers_come_from_tunes_own_logs(tmp_path: Path) -> None:
    trial = _trial("accuracy", 0.5, 0, 0.9)
    run = _write_run(tmp_path / "run", [trial])
    lines = [
        {"training_iteration": 1, "multipliers/flops": 0.5},
        {"training_iteration": 2, "multipliers/flops": 9.0},
        # After a restore Tune repeats an iteration.
        {"training_iteration": 2, "multipliers/flops": 0.7},
    ]
    config = {"config": {"trial": {"name": trial["trial"]}}}
    log = run.tune / "experiment" / "trial" / "result.json"
    log.parent.mkdir(parents=True)
    log.write_text("".join(json.dumps({**config, **line}) + "\n" for line in lines) + '{"half')
    assert load_results(run).multipliers == {trial["trial"]: [{"flops": 0.5}, {"flops": 0.7}]}
    assert "Lagrange multipliers" in write_report(run.path)[0].read_text()


def test_unfinished_runs_are_reported_too(tmp_path: Path) -> None:
    run = _write_run(tmp_path / "run", [])
    run.update_summary(status="interrupted")
    page, results = write_report(run.path)
    assert results.summary.status == "interrupted"
    assert "interrupted" in page.read_text()
    assert comparison_rows(results) == ()


def test_nothing_to_report_is_one_sentence(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    with pytest.raises(RunFolderError, match="no results yet"):
        write_report(run.path)


def test_damaged_summary_is_one_sentence(tmp_path: Path) -> None:
    run = _write_run(tmp_path / "run", [_trial("accuracy", 0.5, 0, 0.9)])
    summary = json.loads(run.summary_path.read_text())
    del summary["best"][0]["reward"]
    run.summary_path.write_text(json.dumps(summary))
    with pytest.raises(RunFolderError, match="damaged"):
        write_report(run.path)


def test_judgements_compare_with_accuracy_at_equal_budgets(tmp_path: Path) -> None:
    trials = [_trial("spatial-entropy", 0.5, seed, 0.90 + 0.001 * seed) for seed in range(5)]
    trials += [_trial("accuracy", 0.5, seed, 0.93 + 0.001 * seed) for seed in range(5)]
    trials += [_trial("accuracy", 0.3, 0, 0.8), _trial("spatial-entropy", 0.3, 0, 0.8)]
    run = _write_run(tmp_path / "run", trials)
    half, third = judgements(load_results(run))
    assert half.sentence.startswith("spatial-entropy is worse than accuracy by 3.00 ± 0.00")
    assert "not enough seeds to tell" in third.sentence


def test_interval_needs_three_seeds() -> None:
    assert estimate_median([0.5, 0.6]).low is None
    assert estimate_median([0.5, 0.6, math.nan]).low is None
    assert math.isnan(estimate_median([]).median)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12))
def test_interval_holds_the_median_and_stays_within_the_values(values: list[float]) -> None:
    found = estimate_median(values)
    assert found.low is not None and found.high is not None
    assert found.median == pytest.approx(np.median(values))
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12


def test_verdict_uses_the_t_distribution() -> None:
    differences = [0.01, 0.02, 0.03]
    verdict = compare_paired(dict(enumerate(differences)), dict.fromkeys(range(3), 0.0))
    # Student's 97.5 % quantile at 2 degrees of freedom is 4.3027; the standard deviation is 0.01.
    assert verdict.half_width == pytest.approx(4.3027 * 0.01 / math.sqrt(3), rel=1e-4)
    assert verdict.difference == pytest.approx(0.02)
    assert verdict.outcome == "unknown"


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [
        ([0.001, -0.001, 0.0, 0.001, -0.001], "on par"),
        ([0.02, 0.021, 0.019, 0.02, 0.02], "better"),
        ([-0.02, -0.021, -0.019, -0.02, -0.02], "worse"),
        ([0.05, -0.05, 0.04, -0.03, 0.0], "unknown"),
        ([0.0, 0.0], "unknown"),
    ],
)
def test_verdicts(differences: list[float], outcome: str) -> None:
    one = dict(enumerate(differences))
    assert compare_paired(one, dict.fromkeys(one, 0.0)).outcome == outcome


def test_only_shared_seeds_are_compared() -> None:
    verdict = compare_paired({0: 0.9, 1: 0.8}, {1: 0.7, 2: 0.1})
    assert verdict.seeds == 1
    assert verdict.difference == pytest.approx(0.1)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40))
def test_pareto_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    front = {tuple(point) for point in pareto_front(np.asarray(points))}
    for cost, accuracy in points:
        beaten = any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points)
        assert ((cost, accuracy) in front) == (not beaten)
