"""What a task is: nothing that was made for another one is used for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from prunetune._references import imported_anew
from prunetune.models import PruningTask, SilentProgress, TaskSpec, load_task, save_weights
from prunetune.models.identity import hash_graph, outputs_difference
from torch import nn

_NET = """
import torch
from torch import nn
import reading

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 10)
    def forward(self, x):
        return self.head(reading.read(self.conv(x)))
"""
# Control flow on values: no graph can be traced that would show the edit.
_READING = """
def read(x):
    if x.mean() > 1e9:
        raise ValueError
    return {}(x).mean((2, 3))
"""


class _Notes(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.trained = False

    def start(self, total: int, label: str) -> None:
        self.trained |= "Training" in label

    def note(self, message: str) -> None:
        self.notes.append(message)


def _load(folder: Path, helper: str, model: str, **values: object) -> tuple[PruningTask, _Notes]:
    (folder / "reading.py").write_text(_READING.format(helper))
    training = {"epochs": 1, "batch_size": 256}
    spec = TaskSpec.model_validate({"model": model, "training": training, **values})
    progress = _Notes()
    with imported_anew():
        return load_task(spec, 0, progress), progress


@pytest.mark.parametrize("by_name", [False, True])
def test_a_trained_network_is_not_used_when_a_module_that_its_file_imports_was_edited(
    by_name: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edited_net.py").write_text(_NET)
    model = "edited_net:Net" if by_name else f"{tmp_path}/edited_net.py:Net"
    first, first_notes = _load(tmp_path, "abs", model)
    again, again_notes = _load(tmp_path, "abs", model)
    edited, edited_notes = _load(tmp_path, "0 - ", model)
    assert first_notes.trained and edited_notes.trained and not again_notes.trained
    assert first.digest == again.digest != edited.digest
    assert "the file reading.py has changed" in edited.identity.differences(first.identity)


def test_a_moved_file_is_the_same_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    weights, tasks = tmp_path / "weights.safetensors", []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "moved_net.py").write_text(_NET)
        if not weights.exists():
            torch.manual_seed(0)
            network = nn.ModuleDict({"conv": nn.Conv2d(1, 8, 3), "head": nn.Linear(8, 10)})
            save_weights(network.state_dict(), weights)
        model = f"{tmp_path}/{name}/moved_net.py:Net"
        tasks.append(_load(tmp_path / name, "abs", model, weights=weights)[0])
    assert tasks[0].digest == tasks[1].digest
    assert tasks[0].identity == tasks[1].identity


class _Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * self.factor


def test_a_graph_shows_what_modules_do_not_say() -> None:
    assert hash_graph(_Scaled(1.0)) == hash_graph(_Scaled(1.0)) != hash_graph(_Scaled(2.0))


def test_outputs_are_compared_relative_to_the_largest() -> None:
    assert outputs_difference([1.0, -4.0], [1.0, -4.0]) == 0.0
    assert outputs_difference([1.0, -4.0], [0.5, -4.0]) == pytest.approx(0.125)
    assert outputs_difference([1.0], [1.0, 2.0]) == float("inf")
