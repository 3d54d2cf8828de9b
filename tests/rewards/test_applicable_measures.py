"""Measures that find nothing in a network are left out, unless somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable

import prunetune as pt
import pytest
import torch
from prunetune.errors import MeasureError
from prunetune.models import PruningTask, load_task
from prunetune.models.progress import SilentProgress
from prunetune.rewards import CandidateEvaluator, EvaluatorSpec, build_evaluator
from torch import Tensor, nn

_OF_OUTPUTS = {"accuracy", "loss", "agreement"}
_OF_MAPS = {"spatial-entropy", "spatial-entropy-256"}


class _Notes(SilentProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


class _NeverCalled(nn.Module):
    """Its last linear layer is for training, and its rectifier is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3)
        self.head, self.relu, self.auxiliary = nn.Linear(12, 10), nn.ReLU(), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x).relu()).relu().mean((2, 3)))


def _small_maps() -> nn.Module:
    """Rectifiers read 1x1 and 3x3 maps only."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Flatten()),
        nn.Linear(12, 10),
    )


def _perceptron() -> nn.Module:
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(3 * 12 * 12, 16), nn.Tanh(), nn.Linear(16, 12), nn.Tanh()),
        nn.Linear(12, 10),
    )


def _task(network: nn.Module) -> PruningTask:
    images = torch.randn(80, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(80) % 10
    return load_task(pt.Task(network, train=(images, labels), test=(images, labels)).spec, 0)


_CASES: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "a layer that is never called": (
        _NeverCalled,
        {"feature-distance", "neuron-entropy"} | _OF_MAPS,
    ),
    "small maps": (_small_maps, _OF_MAPS),
    "no rectifier modules": (_perceptron, _OF_MAPS | {"neuron-entropy"}),
}


@pytest.mark.parametrize("case", _CASES)
def test_default_measures_that_do_not_apply_are_left_out_with_a_note(case: str) -> None:
    network, missing = _CASES[case]
    task, notes = _task(network()), _Notes()
    evaluator = build_evaluator(task, EvaluatorSpec(precision="fp32"), 0, notes)
    every = {spec.name for spec in EvaluatorSpec().measures}
    half = tuple(max(1, size // 2) for size in evaluator.groups.sizes)
    evaluation = evaluator.evaluate(half)
    assert set(evaluator.dense.measures) == set(evaluation.measures) == every - missing
    assert evaluation.measures.keys() >= _OF_OUTPUTS
    for name in every:
        said = [note for note in notes.said if note.startswith(f"The measure {name!r} is left out")]
        assert len(said) == (name in missing)
    assert {spec.name for spec in evaluator.spec.measures} == every - missing
    _check_worker(task, evaluator)


def _check_worker(task: PruningTask, driver: CandidateEvaluator) -> None:
    """Another process is told what was decided, and arrives at the same key without a word."""
    notes = _Notes()
    worker = build_evaluator(task, driver.spec, 0, notes, shortcuts=driver.shortcuts)
    assert worker.key == driver.key
    assert not any("left out" in note for note in notes.said)


@pytest.mark.parametrize("case", _CASES)
def test_what_a_reward_reads_or_a_user_lists_is_an_error(case: str) -> None:
    network, missing = _CASES[case]
    task = _task(network())
    for name in sorted(missing):
        with pytest.raises(MeasureError, match=f"{name}.*another reward than 'mine'"):
            build_evaluator(task, EvaluatorSpec(precision="fp32"), 0, needed={name: "mine"})
        listed = EvaluatorSpec.model_validate({"precision": "fp32", "measures": ["loss", name]})
        with pytest.raises(MeasureError, match=f"{name}.*leave it out"):
            build_evaluator(task, listed, 0)
