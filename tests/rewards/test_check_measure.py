"""Every measure of ours passes its conformance check, and faulty ones are told what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from prunetune.rewards.measures.accuracy import Accuracy
from prunetune.rewards.measures.measure import Batch, Measure
from prunetune.rewards.registry import MEASURES
from prunetune.testing import check_measure
from torch import nn


def _task() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 3)
    ).eval()
    images = torch.randn(12, 1, 8, 8, generator=generator)
    return network, images, torch.randint(0, 3, (12,), generator=generator)


@pytest.mark.parametrize("name", list(MEASURES))
def test_ours_pass(name: str) -> None:
    check_measure(MEASURES.make(name), *_task())


class _PerBatch(Accuracy):
    name = "per-batch"

    def update(self, batch: Batch) -> None:
        super().update(batch)
        self._total += 1.0


class _LeavesHooks(Accuracy):
    name = "leaves-hooks"

    def attach(self, network: nn.Module) -> None:
        super().attach(network)
        network.register_forward_hook(lambda *_: None)


class _Unpicklable(Accuracy):
    name = "unpicklable"

    def __init__(self) -> None:
        super().__init__()
        self.function = lambda: None


class _WrongColumns(Accuracy):
    name = "wrong-columns"

    @property
    def columns(self) -> tuple[str, ...]:
        return ("another",)


class _Grows(Accuracy):
    name = "grows"

    def fit(self, network: nn.Module, batches: Any) -> None:
        self.fitted = getattr(self, "fitted", 0) + 1

    def compute(self) -> dict[str, float]:
        return {self.name: float(self.fitted)}


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (_PerBatch, "cut into batches"),
        (_LeavesHooks, "leaves hooks on a candidate"),
        (_Unpicklable, "cannot be pickled"),
        (_WrongColumns, "one float for each"),
        (_Grows, "fitted a second time"),
    ],
)
def test_what_is_wrong_is_said(measure: type[Measure], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_measure(measure(), *_task())
