"""Fine-tuning a finished run anew: nothing is searched again, and nothing is lost by a mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from prunetune.models import load_artifact
from prunetune.search.engine.entry import finetune_run, resume_run
from prunetune.search.engine.finalists import _in_parallel
from prunetune.search.run.folder import RunFolder
from prunetune.search.run.record import read_record
from prunetune.search.run.summary import read_summary, write_summary

from ..commands import assert_one_sentence, invoke

pytestmark = pytest.mark.ray


@pytest.fixture
def run(finished_copy: Path) -> Path:
    """A finished run that may be fine-tuned anew."""
    return finished_copy


def _weights(folder: Path) -> torch.Tensor:
    network = load_artifact(folder).network
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.slow
def test_networks_are_made_anew_and_candidates_are_not(run: Path) -> None:
    evaluated = read_record(RunFolder.open(run).evaluations)
    found = read_summary(RunFolder.open(run))
    assert found is not None
    (before,) = found.best
    assert before.artifact is not None
    repaired = _weights(run / before.artifact)
    export = run / before.artifact / "model.pt2"
    assert invoke("export", run / before.artifact).exit_code == 0 and export.is_file()
    said = invoke("finetune", run, "--set", "epochs=2", "--json")
    assert said.exit_code == 0
    # What was exported has the weights before.
    assert not export.exists() and "model.pt2 had the weights before" in said.output
    (after,) = json.loads(said.stdout)["best"]
    assert after["candidate"] == list(before.candidate or ())
    assert after["test_before"] == before.test_before
    assert after["finetune_epochs"] == 2 and after["test_after"] > 0.9
    assert not torch.equal(_weights(run / after["artifact"]), repaired)
    assert read_record(RunFolder.open(run).evaluations).equals(evaluated)
    assert yaml.safe_load((run / "spec.yaml").read_text())["finetune"]["epochs"] == 2


@pytest.mark.slow
def test_what_was_chosen_among_finalists_is_not_chosen_again(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def noted(jobs: Any, *arguments: Any) -> None:
        called.extend(function.__name__ for function, *_ in jobs.values())
        _in_parallel(jobs, *arguments)

    # As if it had been interrupted between the search and its finalists.
    folder = RunFolder.open(run)
    found = read_summary(folder)
    assert found is not None
    dense = found.dense.model_copy(update={"test": None})
    searched = {"status": "interrupted", "best": (), "dense": dense}
    write_summary(folder, found.model_copy(update=searched))
    monkeypatch.setattr("prunetune.search.engine.finalists._in_parallel", noted)
    (before,) = resume_run(run).best
    assert len(before.finalists) == 2
    assert called == ["_test_dense", *2 * ["_compare"], "_repair"]
    called.clear()
    (after,) = finetune_run(run, ["epochs=1"]).best
    assert called == ["_repair", "_finetune"]
    assert after.error is None and after.artifact is not None
    assert (after.candidate, after.finalists) == (before.candidate, before.finalists)
    assert after.test_before == before.test_before


@pytest.mark.slow
def test_block_repair_takes_the_place_of_full_repair(run: Path) -> None:
    (full,) = finetune_run(run, ["epochs=0", "repair=full"]).best
    assert full.artifact is not None
    before = _weights(run / full.artifact)
    (block,) = finetune_run(run, ["epochs=0", "repair=block"]).best
    assert block.artifact is not None and block.test_before is not None
    assert block.candidate == full.candidate
    # With as few calibration images as here it may not pay; then the network's notes say so.
    left_out = any("block repair" in note for note in block.notes)
    assert torch.equal(_weights(run / block.artifact), before) == left_out
    assert block.test_before > 0.9
    assert block.test_after == block.test_before


@pytest.mark.slow
def test_the_same_images_are_drawn_every_time_and_others_for_another_count(
    run: Path,
) -> None:
    learnt = []
    for images in (64, 64, 128):
        (best,) = finetune_run(run, ["epochs=1", f"images={images}"]).best
        assert best.artifact is not None
        learnt.append(_weights(run / best.artifact))
    assert torch.equal(learnt[0], learnt[1])
    assert not torch.equal(learnt[0], learnt[2])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("epoch=2", "did you mean 'epochs'"),
        ("epochs=-1", "epochs' is -1"),
        ("images=1", "images' is 1"),
    ],
)
def test_a_mistake_leaves_the_run_as_it_was(run: Path, override: str, said: str) -> None:
    before = (
        (run / "summary.json").read_bytes(),
        (run / "spec.yaml").read_bytes(),
    )
    assert_one_sentence(invoke("finetune", run, "--set", override), said)
    after = (
        (run / "summary.json").read_bytes(),
        (run / "spec.yaml").read_bytes(),
    )
    assert before == after


@pytest.mark.slow
def test_an_interrupted_run_goes_on(run: Path) -> None:
    folder = RunFolder.open(run)
    found = read_summary(folder)
    assert found is not None
    write_summary(folder, found.model_copy(update={"status": "interrupted"}))
    summary = finetune_run(run, ["epochs=0"])
    assert summary.status == "finished" and summary.best[0].finetune_epochs == 0
