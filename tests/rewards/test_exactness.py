"""Shortcuts of an evaluation: taken where the network stays what it is, else given up and said."""

from __future__ import annotations

from collections.abc import Callable

import prunetune as pt
import pytest
import torch
from prunetune.errors import NetworkError
from prunetune.models import PruningTask, load_task
from prunetune.models.inference.precision import resolve_precision
from prunetune.models.inference.shortcuts import Shortcuts
from prunetune.models.progress import SilentProgress
from prunetune.rewards import CandidateEvaluator, EvaluatorSpec, build_evaluator
from torch import Tensor, nn
from torch.nn import functional

_MEASURES = ("accuracy", "loss")


class Notes(SilentProgress):
    """Keeps what a user is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        """Keep a note."""
        self.said.append(message)

    def about(self, word: str) -> list[str]:
        """The notes that hold a word."""
        return [note for note in self.said if word in note]


def brought(network: nn.Module) -> PruningTask:
    """A task of a network with random weights and statistics, and random images."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
            ):
                assert value is not None
                value.uniform_(low, high, generator=generator)
    images = torch.randn(400, 3, 12, 12, generator=generator)
    labels = torch.randint(10, (400,), generator=generator)
    labels[:10] = torch.arange(10)
    return load_task(pt.Task(network, train=(images, labels), test=(images, labels)).spec, 0)


# Calibration images, of 100, that a delivered network is recalibrated on: the others judge it.
_LEARNED = 75


def built(task: PruningTask, **spec: object) -> tuple[CandidateEvaluator, Notes]:
    """Its evaluator, and what was said."""
    notes = Notes()
    asked = EvaluatorSpec.model_validate({"measures": _MEASURES, **spec})
    return build_evaluator(task, asked, 0, notes), notes


def _is_exact(evaluator: CandidateEvaluator, task: PruningTask) -> bool:
    """Whether dense and half network are evaluated as the plain networks compute.

    A network that is delivered is repaired on other images than a candidate, and only where that
    helps; so half networks are compared where they are not repaired, and run in any case.
    """
    images, labels = task.validation.images, task.validation.labels
    with torch.no_grad():
        dense = float(functional.cross_entropy(task.network(images), labels))
        half = tuple(max(1, size // 2) for size in evaluator.groups.sizes)
        # Not what is delivered, which may be something better.
        plain = evaluator.builder._finished(half, evaluator._repair)
        small = float(functional.cross_entropy(plain(images), labels))
    found = evaluator.evaluate(half)
    assert found.error is None
    return evaluator.dense.measures["loss"] == pytest.approx(dense, rel=1e-4) and (
        evaluator.spec.repair != "none" or found.measures["loss"] == pytest.approx(small, rel=1e-3)
    )


class _Plain(nn.Module):
    """Three convolutions that users change in their own ways."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 12, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(12)
        self.c = nn.Conv2d(12, 12, 3, padding=1)
        self.norm3 = nn.BatchNorm2d(12)
        self.relu = nn.ReLU()
        self.head = nn.Linear(12, 10)

    def features(self, x: Tensor) -> Tensor:
        """Maps [n, 12, h, w]."""
        x = self.relu(self.norm1(self.a(x)))
        x = self.relu(self.norm2(self.b(x)))
        return self.relu(self.norm3(self.c(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        return self.head(self.features(x).mean((2, 3)))


def test_a_plain_network_takes_every_shortcut_and_nothing_is_said() -> None:
    torch.manual_seed(0)
    task = brought(_Plain())
    evaluator, notes = built(task, precision="fp32", recalibration=_LEARNED, repair="none")
    assert evaluator.shortcuts == Shortcuts()
    assert not notes.about("evaluations")
    assert _is_exact(evaluator, task)


class _ReadsANorm(_Plain):
    """Folding takes the statistics away, and tracing takes them for constants."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3))) + self.norm1.running_mean.mean()


class _UsesAWeightTwice(_Plain):
    """Folding changes the weight, and fusing hides it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3))) * self.a.weight.square().sum()


class _KnowsItsWidth(_Plain):
    """A constant of the dense network once it is traced."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.head(x.reshape(x.shape[0], self.c.out_channels, -1).mean(2))


class _OverwritesItsShortcut(_Plain):
    """Tracing takes ``+=`` for a sum that leaves its summands alone."""

    def forward(self, x: Tensor) -> Tensor:
        x = kept = self.relu(self.norm1(self.a(x)))
        x += self.norm2(self.c2(x))
        return self.head(self.relu(self.norm3(self.c(self.widen(kept)))).mean((2, 3)))

    def __init__(self) -> None:
        super().__init__()
        self.c2, self.norm2 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.widen = nn.Conv2d(8, 12, 1)
        del self.b


@pytest.mark.parametrize(
    ("network", "given_up"),
    [
        (_ReadsANorm, {"folds", "fuses"}),
        (_UsesAWeightTwice, {"folds", "fuses"}),
        (_KnowsItsWidth, {"fuses"}),
        (_OverwritesItsShortcut, {"fuses"}),
    ],
)
def test_what_changes_outputs_is_given_up_and_said(
    network: type[nn.Module], given_up: set[str]
) -> None:
    torch.manual_seed(0)
    task = brought(network())
    evaluator, notes = built(task, precision="fp32", recalibration=_LEARNED, repair="none")
    taken = vars(evaluator.shortcuts)
    assert {name for name in ("folds", "fuses", "channels_last") if not taken[name]} == given_up
    for name, word in (("folds", "folded"), ("fuses", "fused")):
        assert bool(notes.about(word)) == (name in given_up)
    assert _is_exact(evaluator, task)


def test_workers_do_what_the_driver_decided() -> None:
    torch.manual_seed(0)
    task = brought(_KnowsItsWidth())
    driver, _ = built(task, precision="fp32")
    notes = Notes()
    spec = EvaluatorSpec.model_validate({"measures": _MEASURES, "precision": "fp32"})
    worker = build_evaluator(task, spec, 0, notes, shortcuts=driver.shortcuts)
    assert worker.shortcuts == driver.shortcuts and worker.key == driver.key
    assert not notes.about("fused")
    half = tuple(size // 2 for size in driver.groups.sizes)
    assert worker.evaluate(half).measures == driver.evaluate(half).measures


class _ViewsItsMaps(_Plain):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12 * 144, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).view(x.shape[0], -1))


@pytest.mark.parametrize("repair", ["none", "quick", "light", "full"])
def test_a_view_that_needs_the_usual_order_of_memory_gets_it(repair: str) -> None:
    torch.manual_seed(0)
    task = brought(_ViewsItsMaps())
    evaluator, notes = built(task, precision="fp32", recalibration=_LEARNED, repair=repair)
    assert not evaluator.shortcuts.channels_last
    assert notes.about("channels last")
    assert _is_exact(evaluator, task)


class _InFloat(_Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).float().mean((2, 3)))


class _WithLinspace(_Plain):
    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.head((x * torch.linspace(0.5, 1, x.shape[3])).mean((2, 3)))


class _WithAnAttribute(_Plain):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.rand(12, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.features(x) * self.scale).mean((2, 3)))


class _ByNumPy(_Plain):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(self.features(x).mean((2, 3)))
        if not logits.requires_grad:
            logits = torch.from_numpy(logits.numpy() * 0.5)
        return logits


@pytest.mark.parametrize("network", [_InFloat, _WithLinspace, _WithAnAttribute, _ByNumPy])
@pytest.mark.parametrize("repair", ["none", "light"])
def test_a_network_whose_code_refuses_bf16_is_evaluated_in_fp32(
    network: Callable[[], nn.Module], repair: str
) -> None:
    torch.manual_seed(0)
    task = brought(network())
    evaluator, notes = built(task, recalibration=_LEARNED, repair=repair)
    assert evaluator.precision == "fp32"
    if resolve_precision("auto", torch.device("cpu")) == "bf16":
        assert notes.about("cannot run in bf16")
    assert _is_exact(evaluator, task)
    with pytest.raises(NetworkError, match="precision: auto or fp32"):
        built(task, precision="bf16")
