"""Searches end to end on the embedded digits: real networks, real Ray, real deaths."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prunetune.errors import BudgetError, PruneTuneError, RunFolderError, UnknownNameError
from prunetune.models.artifact import load_artifact, verify_artifact
from prunetune.models.progress import SilentProgress
from prunetune.search.engine.entry import resume_run, run_comparison, run_search
from prunetune.search.run.history import TrialHistory
from prunetune.search.run.record import read_record
from prunetune.search.run.summary import Summary
from prunetune.search.spec.reading import SearchSpec, load_spec, read_spec
from prunetune.search.spec.trials import comparison_trials
from tensorboardX.proto.event_pb2 import Event

pytestmark = pytest.mark.ray


def _spec(output: Path, **values: Any) -> SearchSpec:
    return read_spec(
        {
            "name": "digits",
            "task": {"model": "digits-net"},
            "budgets": {"flops": 0.5},
            "evaluations": 24,
            "finetune": {"epochs": 1},
            "finalists": 2,
            "measures": ["accuracy", "loss"],
            "output": str(output),
            **values,
        }
    )


def _rewards(folder: Path) -> Path:
    file = folder / "rewards.py"
    file.write_text(
        textwrap.dedent(
            """
            from prunetune.rewards.reward import Reward

            class Cheap(Reward):
                name, measures, costs = "cheap", ("accuracy",), ("flops",)

                def __call__(self, evaluation, dense):
                    return evaluation.measures["accuracy"] - 0.1 * evaluation.costs["flops"]

            class Raises(Reward):
                name, measures = "raises", ("accuracy",)

                def __call__(self, evaluation, dense):
                    raise ValueError("not today")

            class NotANumber(Cheap):
                name = "not-a-number"

                def __call__(self, evaluation, dense):
                    return float("nan")

            class Unknown(Cheap):
                name, measures = "unknown", ("acuracy",)
            """
        )
    )
    return file


def _grid(rewards: Path) -> dict[str, list[str]]:
    own = [f"{rewards}:{name}" for name in ("Cheap", "Raises", "NotANumber", "Unknown")]
    return {
        "rewards": ["accuracy", "self-competition", *own],
        "agents": ["ppo-lagrangian", "random"],
    }


class Notes(SilentProgress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        """Remember."""
        self.notes.append(message)


@pytest.fixture(scope="module")
def compared(
    local_ray: None, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Summary:
    folder = tmp_path_factory.mktemp("runs")
    rewards = _rewards(folder)
    return run_comparison(_spec(folder / "run", compare=_grid(rewards)))


@pytest.mark.slow
def test_every_search_ends_with_a_network_within_its_budget(compared: Summary) -> None:
    assert compared.status == "finished"
    good = [best for best in compared.best if best.error is None]
    assert [best.agent for best in good] == ["ppo-lagrangian", "random"] * 3
    for best in good:
        assert best.artifact is not None and best.costs is not None and best.flops is not None
        assert best.feasible and best.costs["flops"] <= 0.5
        assert best.flops / compared.dense.flops == pytest.approx(best.costs["flops"])
        assert best.evaluations == 24
        # A random network is right one time in ten.
        assert best.test_after is not None and best.test_after > 0.85
        verify_artifact(compared.folder / best.artifact)
        artifact = load_artifact(compared.folder / best.artifact)
        count = sum(parameter.numel() for parameter in artifact.network.parameters())
        assert count == best.params


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ("Raises", "ValueError: not today"),
        ("NotANumber", "must return a finite number, but returned nan"),
        ("Unknown", "needs the measure 'acuracy', which was not recorded; did you mean 'accuracy'"),
    ],
)
def test_a_reward_that_cannot_be_used_ends_its_own_searches_only(
    compared: Summary, reward: str, said: str
) -> None:
    failed = [best for best in compared.best if best.reward.endswith(f":{reward}")]
    assert len(failed) == 2
    for best in failed:
        assert best.error is not None and said in best.error
        assert best.artifact is None and best.evaluations == 0


@pytest.mark.slow
def test_all_searches_share_one_record(compared: Summary) -> None:
    widths = [
        tuple(row) for row in read_record(compared.folder / "evaluations")["candidate"].to_pylist()
    ]
    assert len(set(widths)) == len(widths) == compared.evaluations.unique
    asked = {
        each.name: TrialHistory(each).load() for each in (compared.folder / "histories").iterdir()
    }
    everything = [candidate for history in asked.values() for candidate in history]
    assert {candidate.candidate for candidate in everything} <= set(widths)
    assert len(everything) == compared.evaluations.asked == 6 * 24
    # The random agent asks for the same candidates whatever the reward.
    random = [history for name, history in asked.items() if "random" in name]
    assert [c.candidate for c in random[0]] == [c.candidate for c in random[1]]
    for history in asked.values():
        assert [c.evaluations_before for c in history] == list(range(len(history)))


def _curves(folder: Path) -> dict[str, list[float]]:
    """What TensorBoard would draw: values by tag, from TFRecords of length, CRC, event, CRC."""
    curves: dict[str, list[float]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                curves.setdefault(value.tag, []).append(value.simple_value)
    return curves


@pytest.mark.slow
def test_tensorboard_shows_how_every_search_got_on(compared: Summary) -> None:
    for best in compared.best:
        if best.error is not None:
            continue
        history = TrialHistory(compared.folder / "histories" / best.trial)
        curves = _curves(compared.folder / "tune" / best.trial)
        asked = curves["ray/tune/evaluations"]
        assert asked[-1] == 24 and len(asked) == len(history.iterations())
        feasible = [each.reward for each in history.load() if each.feasible]
        assert curves["ray/tune/best_reward"][-1] == pytest.approx(max(feasible), rel=1e-6)
        for tag in ("best_accuracy", "best_flops", "feasible_share"):
            assert len(curves[f"ray/tune/{tag}"]) == len(asked)


@pytest.mark.slow
def test_a_finished_run_is_not_run_again(compared: Summary) -> None:
    notes = Notes()
    assert resume_run(compared.folder, notes) == compared
    assert any("finished" in note for note in notes.notes)
    with pytest.raises(RunFolderError, match="holds a run already"):
        run_search(_spec(compared.folder))


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"budgets": {"flops": 0.0001}}, BudgetError, "cannot be reached"),
        ({"reward": "acuracy"}, UnknownNameError, "did you mean 'accuracy'"),
        ({"agent": "randm"}, UnknownNameError, "did you mean 'random'"),
        ({"criterion": "l3"}, PruneTuneError, "l3"),
        ({"compare": {"budgets": [{"flop": 0.5}]}}, UnknownNameError, "did you mean 'flops'"),
    ],
)
def test_what_is_impossible_is_refused_before_anything_is_written(
    cache_folder: Path,
    tmp_path: Path,
    values: Mapping[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    with pytest.raises(error, match=said):
        run_comparison(_spec(tmp_path / "run", **values))
    assert not list(tmp_path.iterdir())


_KILLED = """
import os, signal, sys
from prunetune.models.progress import SilentProgress
from prunetune.search.engine.entry import run_comparison
from prunetune.search.spec.reading import load_spec

class Deadly(SilentProgress):
    left = int(sys.argv[2])

    def advance(self, units=1):
        Deadly.left -= units
        if Deadly.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

run_comparison(load_spec(sys.argv[1]), Deadly())
"""


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_as_if_nothing_had_happened(
    compared: Summary, tmp_path: Path
) -> None:
    file = tmp_path / "digits.yaml"
    output = tmp_path / "run"
    rewards = compared.folder.parent / "rewards.py"
    file.write_text(
        "task: {model: digits-net}\nbudgets: {flops: 0.5}\nevaluations: 24\n"
        "finetune: {epochs: 1}\nfinalists: 2\nmeasures: [accuracy, loss]\n"
        f"output: {output}\n"
        f"compare: {json.dumps(_grid(rewards))}\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", _KILLED, str(file), "40"], capture_output=True, timeout=300
    )
    assert ended.returncode == -9, ended.stderr.decode()
    before = {tuple(row) for row in read_record(output / "evaluations")["candidate"].to_pylist()}
    assert before
    summary = resume_run(output)
    assert summary.status == "finished"
    for trial in comparison_trials(load_spec(file)):
        whole = TrialHistory(compared.folder / "histories" / trial.name).load()
        assert TrialHistory(output / "histories" / trial.name).load() == whole
    rows = [tuple(row) for row in read_record(output / "evaluations")["candidate"].to_pylist()]
    assert len(rows) == len(set(rows)) and before <= set(rows)
    found = {best.trial: (best.candidate, best.test_after) for best in summary.best}
    assert found == {best.trial: (best.candidate, best.test_after) for best in compared.best}
