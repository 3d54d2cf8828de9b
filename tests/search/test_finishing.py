"""What breaks or dies after a search keeps what is there, and can be tried again."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from prunetune.search.engine.entry import run_search
from prunetune.search.run.folder import RunFolder
from prunetune.search.run.record import read_record
from prunetune.search.run.summary import Summary, read_summary
from prunetune.search.spec.reading import read_spec

from ..commands import assert_one_sentence, invoke
from ..processes import Command
from ..small_run import small_run_values

pytestmark = pytest.mark.ray

# A training that ends with a loss that is no number, after its first step.
_DIVERGES = {"epochs": 1, "learning_rate": 1e18, "clip": None, "freeze_batchnorm": False}


def _files(run: Path) -> dict[str, bytes]:
    """What a run delivered, file by file."""
    chosen = [run / "summary.json", run / "spec.yaml", run / "identity.json"]
    chosen += [path for path in (run / "best").rglob("*") if path.is_file()]
    return {str(path.relative_to(run)): path.read_bytes() for path in chosen}


def _summary(run: Path) -> Summary:
    found = read_summary(RunFolder.open(run))
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray", "digits_task")
def test_a_network_that_cannot_be_fine_tuned_is_delivered_repaired(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(small_run_values(tmp_path, finetune=_DIVERGES)))
    run = tmp_path / "run"
    for words in (("search", spec), ("resume", run)):
        said = invoke(*words)
        assert said.exit_code == 1, said.output
        assert "lower learning_rate" in said.stderr and "prunetune resume" in said.stderr
        summary = _summary(run)
        (best,) = summary.best
        assert summary.status == "incomplete" and best.artifact is not None
        assert best.test_before is not None and best.test_after == best.test_before
        assert best.finetune_epochs == 0 and "could not be fine-tuned" in str(best.missing)
        assert invoke("verify", run / best.artifact).exit_code == 0
    evaluated = read_record(RunFolder.open(run).evaluations).num_rows
    mended = ("learning_rate=0.01", "clip=1", "freeze_batchnorm=true")
    said = invoke("finetune", run, *(word for each in mended for word in ("--set", each)))
    assert said.exit_code == 0, said.output
    summary = _summary(run)
    assert summary.status == "finished" and summary.error is None
    assert summary.best[0].finetune_epochs == 1 and summary.best[0].missing is None
    assert read_record(RunFolder.open(run).evaluations).num_rows == evaluated


def test_a_finetune_that_ends_in_an_error_keeps_what_is_there(finished_copy: Path) -> None:
    before = _files(finished_copy)
    words = [f"{key}={json.dumps(value)}" for key, value in _DIVERGES.items()]
    said = invoke("finetune", finished_copy, *(x for word in words for x in ("--set", word)))
    assert_one_sentence(said, "lower learning_rate", "has the networks that it had")
    assert _files(finished_copy) == before
    assert "nothing to resume" in invoke("resume", finished_copy).output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_finetune_that_dies_keeps_what_is_there_and_goes_on(
    finished_copy: Path, number: signal.Signals
) -> None:
    before = _files(finished_copy)
    arrived = finished_copy / ".replacement" / "summary.json"
    with Command("finetune", finished_copy, "--set", "epochs=40") as command:
        command.wait_until(lambda: '"artifact": "best' in _text(arrived), 240)
        command.send(number)
        assert command.end(60) == (130 if number == signal.SIGTERM else -number)
    assert "Traceback" not in command.output
    assert _files(finished_copy) == before
    assert invoke("report", finished_copy).exit_code == 0
    said = invoke("resume", finished_copy)
    assert said.exit_code == 0, said.output
    (best,) = _summary(finished_copy).best
    assert best.finetune_epochs == 40 and best.missing is None
    assert yaml.safe_load((finished_copy / "spec.yaml").read_text())["finetune"]["epochs"] == 40
    assert "nothing to resume" in invoke("resume", finished_copy).output


@pytest.mark.slow
def test_a_killed_report_or_export_leaves_the_earlier_one(finished_copy: Path) -> None:
    (best,) = _summary(finished_copy).best
    artifact = finished_copy / str(best.artifact)
    assert invoke("report", finished_copy).exit_code == 0
    assert invoke("export", artifact).exit_code == 0
    page, exported = finished_copy / "report" / "index.html", artifact / "model.pt2"
    before = _files(finished_copy), page.read_bytes(), exported.read_bytes()
    for seconds in (1.0, 3.0, 5.0):
        for words in (("report", finished_copy), ("export", artifact, "--format", "onnx")):
            with Command(*words) as command:
                try:
                    command.end(seconds)
                except Exception:
                    command.send(signal.SIGKILL)
                    command.end(10)
        there = _files(finished_copy)
        # Only a whole export may have come, under its own name.
        assert {name: there[name] for name in before[0]} == before[0]
        assert exported.read_bytes() == before[2]
        assert b"</html>" in page.read_bytes()


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


_OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=10, input_shape=(1, 8, 8)):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        )
        self.head, self.aux = Head(16, num_classes), nn.Linear(16, num_classes)

    def forward(self, x):
        x = self.body(x).mean((2, 3))
        return (self.head(x), self.aux(x)) if self.training else self.head(x)

class Head(nn.Linear):
    def forward(self, x):
        if self.training and {broken}:
            raise TypeError("no loss for you")
        return super().forward(x)
"""


def _own(folder: Path, broken: bool) -> dict[str, Any]:
    import torch
    from prunetune._registry import resolve

    (folder / "net.py").write_text(_OWN.format(broken=broken))
    name = f"{folder / 'net.py'}:Net"
    torch.manual_seed(0)
    torch.save(resolve(name, "network")().state_dict(), folder / "weights.pt")
    task = {"model": name, "weights": str(folder / "weights.pt")}
    return small_run_values(folder, task=task, reward="accuracy", finetune={"epochs": 1})


def test_what_cannot_be_trained_is_said_before_the_search(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(_own(tmp_path, broken=True)))
    said = invoke("search", spec)
    assert_one_sentence(said, "no loss for you", "finetune.epochs")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_networks_with_auxiliary_outputs_are_fine_tuned(tmp_path: Path) -> None:
    summary = run_search(read_spec(_own(tmp_path, broken=False)))
    assert summary.status == "finished"
    assert summary.best[0].finetune_epochs == 1 and summary.best[0].test_after is not None


def test_an_image_that_cannot_be_decoded_is_named_before_the_search(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 4)):
        for label in ("a", "b"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 255, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / label / f"{number}.png")
    broken = tmp_path / "data" / "test" / "b" / "3.png"
    broken.write_bytes(broken.read_bytes()[:50])
    values = _own(tmp_path, broken=False)
    values["task"] |= {"data": {"name": "imagefolder", "root": str(tmp_path / "data")}}
    values["task"].pop("weights")
    values["task"]["training"] = {"epochs": 1}
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump({**values, "finetune": {"epochs": 0}}))
    assert_one_sentence(invoke("search", spec), "test/b/3.png")
    assert not (tmp_path / "run").exists()
