"""The report: its statistics against closed forms, its files from a run folder alone."""

from __future__ import annotations

import html.parser
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prunetune.errors import RunFolderError
from prunetune.search.report import comparison_rows, judgements, load_results, write_report
from prunetune.search.report.fidelity import rank_correlation, reward_fidelities
from prunetune.search.report.figures import pareto_front
from prunetune.search.report.significance import compare_paired, estimate_median
from prunetune.search.report.table import displayed
from prunetune.search.run.folder import RunFolder
from prunetune.search.run.summary import Summary, write_summary

from .runs import finished_trial, write_run


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
        finished_trial(reward, limit, seed, 0.95 + 0.001 * seed)
        for reward in ("accuracy", "spatial-entropy")
        for limit in (0.5, 0.3)
        for seed in range(3)
    ]
    run = write_run(tmp_path / "run", trials)
    moved = tmp_path / "elsewhere"
    run.path.rename(moved)
    page, _ = write_report(moved)
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "accuracy_vs_flops.png",
        "comparison.csv",
        "comparison.parquet",
        "costs.png",
        "fidelity.csv",
        "fidelity.parquet",
        "index.html",
        "layer_widths.png",
        "learning_curves.png",
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
    trials = [finished_trial("accuracy", 0.5, seed, value) for seed, value in enumerate(accuracies)]
    trials.append({**finished_trial("accuracy", 0.5, 3, 0.2), "feasible": False})
    run = write_run(tmp_path / "run", trials)
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


@pytest.mark.ray
def test_a_real_run_is_reported_as_its_files_have_it(finished: Summary, tmp_path: Path) -> None:
    results = load_results(RunFolder.open(finished.folder))
    assert results.summary == finished
    (best,) = finished.best
    (row,) = comparison_rows(results)
    cells = displayed(row, results)
    assert any(best.agent in cell for cell in cells)
    # A relative budget, and the accuracy on test images, to the digits of the table.
    assert best.test_after is not None and best.costs is not None
    assert any(f"{100 * best.test_after:.2f}" in cell for cell in cells), cells
    page, _ = write_report(shutil.copytree(finished.folder, tmp_path / "run"))
    parsed = _Page(page.read_text())
    assert not parsed.open and len(parsed.alternatives) >= 3
    assert pq.read_table(page.parent / "comparison.parquet").to_pylist()[0]["test_after"] == (
        best.test_after
    )


def test_searches_that_were_stopped_are_marked(tmp_path: Path) -> None:
    trials = [finished_trial("accuracy", 0.5, seed, 0.9) for seed in range(3)]
    trials[2] = {**trials[2], "stopped": True}
    run = write_run(tmp_path / "run", trials)
    results = load_results(run)
    (row,) = comparison_rows(results)
    assert displayed(row, results)[3] == "3 (1 stopped early)"
    write_report(run.path)
    assert pq.read_table(run.report / "comparison.parquet")["stopped"].to_pylist() == [1]


def test_multipliers_come_from_tunes_own_logs(tmp_path: Path) -> None:
    trial = finished_trial("accuracy", 0.5, 0, 0.9)
    run = write_run(tmp_path / "run", [trial])
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
    run = write_run(tmp_path / "run", [])
    summary = load_results(run).summary
    write_summary(run, summary.model_copy(update={"status": "interrupted"}))
    page, results = write_report(run.path)
    assert results.summary.status == "interrupted"
    assert "interrupted" in page.read_text()
    assert comparison_rows(results) == ()


def test_nothing_to_report_is_one_sentence(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    with pytest.raises(RunFolderError, match="no results yet"):
        write_report(run.path)


def test_damaged_summary_is_one_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [finished_trial("accuracy", 0.5, 0, 0.9)])
    summary = json.loads(run.summary_path.read_text())
    del summary["best"][0]["reward"]
    run.summary_path.write_text(json.dumps(summary))
    with pytest.raises(RunFolderError, match="damaged"):
        write_report(run.path)


def test_judgements_compare_with_accuracy_at_equal_budgets(tmp_path: Path) -> None:
    trials = [
        finished_trial("spatial-entropy", 0.5, seed, 0.90 + 0.001 * seed) for seed in range(5)
    ]
    trials += [finished_trial("accuracy", 0.5, seed, 0.93 + 0.001 * seed) for seed in range(5)]
    trials += [
        finished_trial("accuracy", 0.3, 0, 0.8),
        finished_trial("spatial-entropy", 0.3, 0, 0.8),
    ]
    run = write_run(tmp_path / "run", trials)
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


def _varied_trials(count: int) -> list[dict[str, object]]:
    """Searches with a candidate of its own each, the later the better after fine-tuning."""
    return [
        finished_trial("accuracy", 0.5, seed, 0.9 + 0.01 * seed, widths=(1, 1 + seed))
        for seed in range(count)
    ]


def test_fidelity_is_the_rank_correlation_over_candidates_that_were_fine_tuned(
    tmp_path: Path,
) -> None:
    # Accuracy in the search rises with what fine-tuning gives, so does the loss; entropy falls.
    run = write_run(
        tmp_path / "run",
        # The same candidate, chosen by two searches, counts once.
        [*_varied_trials(8), finished_trial("loss", 0.5, 9, 0.97, widths=(1, 8))],
        lambda widths: {
            "accuracy": widths[1] ** 3 / 1000,
            "loss": float(widths[1]),
            "spatial-entropy": 1 / widths[1],
            "agreement": math.nan if widths[1] > 3 else 0.1 * widths[1],
        },
    )
    found = {each.reward: each for each in reward_fidelities(load_results(run))}

    assert found["accuracy"].correlation == pytest.approx(1)
    assert found["loss"].correlation == pytest.approx(-1)
    assert found["spatial-entropy"].correlation == pytest.approx(1)
    assert {each.candidates for each in found.values()} == {8}
    assert "agreement" not in found, "known of three candidates, which say nothing"
    assert "neuron-entropy" not in found, "not recorded"
    page, _ = write_report(run.path)
    assert "Reward fidelity" in page.read_text()
    rows = pq.read_table(run.report / "fidelity.parquet").to_pylist()
    assert {row["reward"]: row["candidates"] for row in rows}["accuracy"] == 8


def test_fidelity_over_few_candidates_is_not_spoken_of(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", _varied_trials(7), lambda w: {"accuracy": w[1] / 10})
    assert reward_fidelities(load_results(run)) == ()
    page, _ = write_report(run.path)
    assert "Reward fidelity" not in page.read_text()
    assert pq.read_table(run.report / "fidelity.parquet").num_rows == 0


def test_fidelity_keeps_budgets_apart(tmp_path: Path) -> None:
    trials = _varied_trials(8)
    trials += [
        finished_trial("accuracy", 0.3, seed, 0.8 - 0.01 * seed, widths=(2, 1 + seed))
        for seed in range(8)
    ]
    run = write_run(tmp_path / "run", trials, lambda widths: {"accuracy": widths[1] / 10})
    found = [each for each in reward_fidelities(load_results(run)) if each.reward == "accuracy"]

    assert [each.correlation for each in found] == [pytest.approx(1), pytest.approx(-1)]


def test_fidelity_knows_rewards_with_parameters(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", _varied_trials(8), lambda w: {"accuracy": w[1] / 10})
    entropy = {"name": "spatial-entropy", "parameters": {"column": "accuracy"}}
    run.write_spec({"compare": {"rewards": [entropy, "gone.py:Reward"]}})
    found = reward_fidelities(load_results(run))

    assert found[0].reward == "spatial-entropy (column=accuracy)"
    assert found[0].correlation == pytest.approx(-1)
    # Nobody searched with the one that is gone, so nothing is known of it.
    assert [each.reward for each in found if each.compared] == [found[0].reward]


def test_rank_correlations_interval_against_the_published_formula() -> None:
    one, other = [1.0, 2, 3, 4, 5, 6, 7, 8], [2.0, 1, 4, 3, 6, 5, 8, 7]
    correlation, low, high = rank_correlation(one, other)

    # Eight differences of one: 1 - 6 * 8 / (8 * 63); Bonett & Wright (2000), equation 6.
    assert correlation == pytest.approx(1 - 48 / 504)
    error = 1.959964 * math.sqrt((1 + correlation**2 / 2) / 5)
    assert low == pytest.approx(math.tanh(math.atanh(correlation) - error), rel=1e-5)
    assert high == pytest.approx(math.tanh(math.atanh(correlation) + error), rel=1e-5)


def test_rank_correlation_of_a_perfect_ranking_of_few_is_not_certain() -> None:
    correlation, low, high = rank_correlation([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])

    assert correlation == pytest.approx(1)
    assert low is not None and high is not None and low < 0.9 < high <= 1
    assert rank_correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5])[1:] == (None, None)
