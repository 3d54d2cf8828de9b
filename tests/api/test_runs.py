"""Runs from Python: a search of a live network, its handle, resuming and loading."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import prunetune as pt
import pytest
import torch
import yaml
from prunetune._live import _OBJECTS
from prunetune.errors import NetworkError, RunFolderError, SpecError, UnknownNameError
from prunetune.models import accuracy, load_task
from torch import nn

from .live_networks import SIZES, Frugal, SmallNet, digits, trained

pytestmark = pytest.mark.ray


@pytest.fixture
def other_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process had never seen the objects."""
    for reference in list(_OBJECTS):
        monkeypatch.delitem(_OBJECTS, reference)


def test_best_network_is_small_right_and_in_budget(run: pt.Run, task: pt.Task) -> None:
    best = run.best
    assert run.summary.status == "finished" and best.feasible
    assert best.costs["flops"] <= 0.5 and best.widths.keys() == SIZES.keys()
    assert tuple(best.widths.values()) == best.candidate
    assert isinstance(best.network, nn.Module) and best.network is run.best.network
    assert best.network.get_submodule("features.0").out_channels == best.widths["features.0"]
    assert accuracy(best.network, load_task(task.spec, 0).test()) == pytest.approx(best.accuracy)
    assert best.accuracy > 0.7 and best.validation_accuracy > 0.7


def test_spec_says_that_the_network_is_live(run: pt.Run, task: pt.Task) -> None:
    spec = yaml.safe_load((run.folder / "spec.yaml").read_text())
    assert spec["task"]["model"] == f"live:SmallNet@{(task.digest or '')[:16]}"
    assert spec["reward"]["name"].startswith("live:Frugal@")
    assert (run.folder / "dense.safetensors").is_file()
    assert not list(run.folder.glob("*.pkl"))


def test_frame_has_every_candidate(run: pt.Run) -> None:
    frame = run.frame()
    assert len(frame) == 24
    assert {"trial", "candidate", "reward", "feasible", "flops", "params", "accuracy"} <= {
        *frame.columns
    }
    expected = frame["accuracy"] + 0.05 * (1 - frame["params"])
    assert (frame["reward"] - expected).abs().max() < 1e-9
    assert (frame["feasible"] == (frame["flops"] <= 0.5)).all()
    chosen = frame[frame["candidate"] == run.best.candidate]
    assert len(chosen) and chosen["feasible"].all()


def test_report_and_tables(run: pt.Run) -> None:
    page = run.report()
    assert page == run.folder / "report" / "index.html" and "SmallNet" in page.read_text()
    assert "finished" in repr(run) and "flops" in repr(run.best)
    assert "<table>" in run._repr_html_() and "<td>" in run.best._repr_html_()


def test_evaluation_in_process_is_that_of_the_run(run: pt.Run, task: pt.Task) -> None:
    frame = run.frame()
    row = frame[frame["candidate"] == run.best.candidate].iloc[0]
    candidate = run.best.candidate
    assert candidate is not None
    evaluation = pt.evaluate(task, candidate)
    assert evaluation.measures["accuracy"] == row["accuracy"]
    assert evaluation.costs["flops"] == row["flops"]


def test_saved_network_is_loaded_with_the_dense_one(
    run: pt.Run, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = run.best.save(tmp_path / "half")
    with pytest.raises(RunFolderError, match="already"):
        run.best.save(folder)
    images = digits()[1][0]
    with torch.no_grad():
        expected = run.best.network(images)
        request.getfixturevalue("other_session")
        with pytest.raises(NetworkError, match="give the dense network"):
            pt.load(folder)
        for dense in (SmallNet(), SmallNet):
            assert torch.equal(pt.load(folder, network=dense).network(images), expected)
    with pytest.raises(NetworkError, match="other channel groups"):
        pt.load(folder, network=nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 10)))


def test_finished_run_is_opened_and_resumed_to_itself(run: pt.Run, task: pt.Task) -> None:
    assert pt.open_run(run.folder).best.candidate == run.best.candidate
    assert pt.resume(run.folder, task=task, progress=False).summary == run.summary


def test_resume_asks_for_what_the_run_began_with(
    run: pt.Run, task: pt.Task, other_session: None
) -> None:
    with pytest.raises(RunFolderError, match="give that task again"):
        pt.resume(run.folder)
    train, test = digits()
    with pytest.raises(RunFolderError, match="began with the network 'SmallNet'"):
        pt.resume(run.folder, task=pt.Task(trained(epochs=1), train=train, test=test))
    again = pt.Task(trained(), train=train, test=test)
    assert again.digest == task.digest
    with pytest.raises(RunFolderError, match=r"needs 'Frugal' .*objects"):
        pt.resume(run.folder, task=again)

    class Frugal:
        """Another one of this name."""

    with pytest.raises(RunFolderError, match="Frugal that was given has changed"):
        pt.resume(run.folder, task=again, objects=[Frugal()])


def test_command_line_says_what_is_missing(run: pt.Run) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prunetune", "resume", str(run.folder), "--evaluations", "30"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Python session" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_run_goes_on_in_another_session(run: pt.Run, tmp_path: Path, other_session: None) -> None:
    import shutil

    folder = shutil.copytree(run.folder, tmp_path / "longer")
    train, test = digits()
    longer = pt.resume(
        folder,
        task=pt.Task(trained(), train=train, test=test),
        objects=[Frugal()],
        evaluations=32,
        progress=False,
        # It was copied.
        trust=True,
    )
    frame, before = longer.frame(), run.frame()
    assert len(frame) == 32
    assert frame["candidate"].tolist()[:24] == before["candidate"].tolist()
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_grid_of_own_agents_costs_and_criteria(
    task: pt.Task, local_ray: None, cache_folder: Path, tmp_path: Path
) -> None:
    from prunetune.models.criteria import L1
    from prunetune.search.agents import Agent
    from prunetune.search.agents.random_search import RandomAgent

    class Own(RandomAgent):
        """Random, by another name."""

    def bytes_of_weights(network: nn.Module, example: torch.Tensor) -> float:
        return 4.0 * sum(each.numel() for each in network.parameters())

    assert issubclass(Own, Agent)
    grid = pt.compare(
        task,
        rewards=["accuracy", Frugal],
        budgets=[{bytes_of_weights: 0.6}],
        agents=[Own],
        seeds=[3],
        evaluations=8,
        finetune=0,
        criterion=L1,
        output=tmp_path / "grid",
        progress=False,
    )
    assert [best.trial for best in grid.bests] == [
        "accuracy_bytes_of_weights0.6_Own_seed3",
        "Frugal_bytes_of_weights0.6_Own_seed3",
    ]
    assert all(best.costs["bytes_of_weights"] <= 0.6 for best in grid.bests)
    assert "bytes_of_weights" in grid.frame().columns
    with pytest.raises(RunFolderError, match="has 2 networks"):
        _ = grid.best


def test_mistakes_are_one_sentence(task: pt.Task, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    with pytest.raises(UnknownNameError, match="did you mean 'flops'"):
        pt.prune(task, {"flop": 0.5}, output=folder, progress=False)
    with pytest.raises(SpecError, match="'evaluation' is not a key"):
        pt.prune(task, {"flops": 0.5}, evaluation=3, output=folder, progress=False)
    with pytest.raises(SpecError, match=r"prunetune\.Task"):
        pt.prune(SmallNet(), {"flops": 0.5}, progress=False)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="no budgets"):
        pt.compare(task, budgets=[])
    assert not folder.exists()
