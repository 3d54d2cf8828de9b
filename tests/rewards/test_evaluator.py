"""The evaluator: deterministic, exact, without memory of what it evaluated before."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prunetune.errors import UnknownNameError
from prunetune.models import (
    DataSpec,
    PruningTask,
    TaskSpec,
    TrainingSpec,
    accuracy,
    load_task,
)
from prunetune.models.progress import KeptNotes
from prunetune.models.repair.held_out import HeldOutImages
from prunetune.rewards import CandidateEvaluator, EvaluatorSpec, build_evaluator
from torch.nn import functional

Candidate = tuple[int, ...]


@pytest.fixture(scope="module")
def evaluator(digits_task: PruningTask) -> CandidateEvaluator:
    return build_evaluator(digits_task, EvaluatorSpec(precision="fp32"), 0)


@pytest.fixture(scope="module")
def awkward(cache_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PruningTask:
    """Grouped convolutions, sums in place, and a rectifier that is a function."""
    file = tmp_path_factory.mktemp("networks") / "awkward.py"
    file.write_text(
        "import torch\nfrom torch import nn\n"
        "class Awkward(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)\n"
        "        self.norm = nn.BatchNorm2d(16)\n"
        "        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)\n"
        "        self.norm1 = nn.BatchNorm2d(16)\n"
        "        self.last = nn.Conv2d(16, 16, 1)\n"
        "        self.relu = nn.ReLU()\n"
        "        self.linear = nn.Linear(16, num_classes)\n"
        "    def forward(self, x):\n"
        "        x = self.relu(self.norm(self.stem(x)))\n"
        "        y = torch.relu(self.norm1(self.grouped(x)))\n"
        "        y = self.last(y)\n"
        "        y.add_(x)\n"
        "        y = torch.relu_(y)\n"
        "        return self.linear(y.mean((2, 3)))\n"
    )
    training = TrainingSpec(epochs=3, batch_size=64)
    return load_task(TaskSpec(model=f"{file}:Awkward", groups="all", training=training), 0)


def _candidates(sizes: Candidate, count: int, seed: int = 0) -> list[Candidate]:
    draw = np.random.default_rng(seed)
    return [tuple(int(draw.integers(1, size + 1)) for size in sizes) for _ in range(count)]


def _numbers(evaluation: Any) -> tuple[object, ...]:
    return evaluation.candidate, evaluation.measures, evaluation.costs, evaluation.error


def test_dense_evaluation_is_the_dense_networks_accuracy(
    evaluator: CandidateEvaluator, digits_task: PruningTask
) -> None:
    dense = evaluator.dense
    assert dense.candidate == evaluator.groups.sizes
    assert dense.costs == {"flops": 1.0, "params": 1.0}
    expected = accuracy(digits_task.network, digits_task.validation)
    assert dense.measures["accuracy"] == pytest.approx(expected, abs=1e-9)
    with torch.no_grad():
        outputs = digits_task.network(digits_task.validation.images)
    loss = float(functional.cross_entropy(outputs, digits_task.validation.labels))
    assert dense.measures["loss"] == pytest.approx(loss, rel=1e-4)
    assert dense.measures["agreement"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("repair", ["none", "quick", "light", "full"])
def test_measures_are_those_of_the_network_that_is_built(
    digits_task: PruningTask, awkward: PruningTask, repair: Any
) -> None:
    for task in (digits_task, awkward):
        # What is built is recalibrated on all calibration images but those that judge it.
        images = len(HeldOutImages(task.network, task.calibration).learned)
        spec = EvaluatorSpec(precision="fp32", repair=repair, recalibration=images)
        evaluator = build_evaluator(task, spec, 0)
        compared = 0
        for widths in _candidates(evaluator.groups.sizes, 4):
            evaluation = evaluator.evaluate(widths)
            said = KeptNotes()
            network = evaluator.build(widths, progress=said)
            if said.notes:
                continue  # what is delivered is something better
            compared += 1
            with torch.no_grad():
                outputs = network(task.validation.images)
            loss = float(functional.cross_entropy(outputs, task.validation.labels))
            assert evaluation.measures["loss"] == pytest.approx(loss, rel=1e-3)
            expected = accuracy(network, task.validation)
            one_image = 1 / len(task.validation.labels)
            assert abs(evaluation.measures["accuracy"] - expected) <= one_image + 1e-9
        assert compared


def test_costs_are_those_of_the_tables(evaluator: CandidateEvaluator) -> None:
    structure = evaluator.groups.structure
    for widths in _candidates(evaluator.groups.sizes, 5):
        costs = evaluator.evaluate(widths).costs
        assert costs["flops"] == int(structure.flops(widths)) / structure.dense_flops
        assert costs["params"] == int(structure.params(widths)) / structure.dense_params
        built = evaluator.build(widths)
        assert sum(each.numel() for each in built.parameters()) == structure.params(widths)


@pytest.mark.parametrize("repair", ["none", "quick", "light", "full"])
def test_an_evaluation_does_not_depend_on_those_before(
    digits_task: PruningTask, repair: Any
) -> None:
    spec = EvaluatorSpec(precision="fp32", repair=repair)
    first, second = (build_evaluator(digits_task, spec, 0) for _ in range(2))
    assert first.key == second.key
    candidates = _candidates(first.groups.sizes, 6)
    forwards = [_numbers(first.evaluate(widths)) for widths in candidates]
    first.build(candidates[0])
    backwards = [_numbers(second.evaluate(widths)) for widths in reversed(candidates)]
    assert forwards == backwards[::-1]
    assert _numbers(first.evaluate(candidates[0])) == forwards[0]
    assert _numbers(first.dense) == _numbers(second.dense)


def test_recalibration_uses_as_many_images_as_it_says(digits_task: PruningTask) -> None:
    losses = {}
    for images in (16, 128):
        spec = EvaluatorSpec(precision="fp32", repair="none", recalibration=images)
        evaluator = build_evaluator(digits_task, spec, 0)
        widths = _candidates(evaluator.groups.sizes, 1)[0]
        # The same network by hand: statistics of the first images, all in one batch.
        network = evaluator.build(widths).train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        with torch.no_grad():
            network(digits_task.calibration[:images])
            outputs = network.eval()(digits_task.validation.images)
        expected = float(functional.cross_entropy(outputs, digits_task.validation.labels))
        losses[images] = evaluator.evaluate(widths).measures["loss"]
        assert losses[images] == pytest.approx(expected, rel=1e-3)
    assert losses[16] != losses[128]


def test_labels_and_images_belong_together_however_they_are_ordered(
    digits_task: PruningTask,
) -> None:
    order = torch.randperm(
        len(digits_task.validation.labels), generator=torch.Generator().manual_seed(0)
    )
    shuffled = dataclasses.replace(
        digits_task,
        validation=dataclasses.replace(
            digits_task.validation,
            images=digits_task.validation.images[order],
            labels=digits_task.validation.labels[order],
        ),
    )
    spec = EvaluatorSpec(precision="fp32", measures=("accuracy", "loss", "agreement"))  # type: ignore[arg-type]
    one, other = (build_evaluator(task, spec, 0) for task in (digits_task, shuffled))
    for widths in _candidates(one.groups.sizes, 3):
        found, expected = other.evaluate(widths).measures, one.evaluate(widths).measures
        assert found == pytest.approx(expected, rel=1e-5)


def test_evaluating_and_building_leave_the_dense_network_alone(awkward: PruningTask) -> None:
    before = {name: value.clone() for name, value in awkward.network.state_dict().items()}
    for repair in ("none", "quick", "light", "full"):
        evaluator = build_evaluator(awkward, EvaluatorSpec(repair=repair), 0)
        for widths in (*_candidates(evaluator.groups.sizes, 3), evaluator.groups.sizes):
            evaluator.evaluate(widths)
            network = evaluator.build(widths).train()
            optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
            network(awkward.calibration[:8]).sum().backward()
            optimiser.step()
    after = awkward.network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not awkward.network.training
    assert not any(module._forward_hooks for module in awkward.network.modules())


def _live_bytes() -> tuple[int, int]:
    gc.collect()
    tensors = [
        each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)
    ]
    return len(tensors), sum(each.untyped_storage().nbytes() for each in tensors)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["digits", "grouped"])
def test_memory_is_flat(
    digits_task: PruningTask, awkward: PruningTask, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Solutions of quick repair are kept on purpose, up to a limit; here the limit is none.
    monkeypatch.setattr("prunetune.models.repair.quick._CACHE_BYTES", 0)
    task = digits_task if which == "digits" else awkward
    evaluator = build_evaluator(task, EvaluatorSpec(), 0)
    candidates = _candidates(evaluator.groups.sizes, 110)
    for widths in candidates[:10]:
        evaluator.evaluate(widths)
    count, size = _live_bytes()
    for widths in candidates[10:]:
        evaluator.evaluate(widths)
    evaluator.evaluate(candidates[9])
    count_after, size_after = _live_bytes()
    assert count_after <= count + 10
    assert size_after <= size + 2**16


def test_wrong_widths_are_refused(evaluator: CandidateEvaluator) -> None:
    sizes = evaluator.groups.sizes
    for wrong in (sizes[:-1], (*sizes, 1), (0, *sizes[1:]), (sizes[0] + 1, *sizes[1:])):
        with pytest.raises(ValueError, match=r"values are needed|not in 1\.\."):
            evaluator.evaluate(wrong)
        with pytest.raises(ValueError, match=r"values are needed|not in 1\.\."):
            evaluator.build(wrong)


def test_bf16_and_fp32_nearly_agree(
    evaluator: CandidateEvaluator, digits_task: PruningTask
) -> None:
    coarse = build_evaluator(digits_task, EvaluatorSpec(precision="bf16"), 0)
    assert coarse.precision == "bf16"
    assert coarse.key != evaluator.key
    assert abs(coarse.dense.measures["accuracy"] - evaluator.dense.measures["accuracy"]) <= 0.005
    candidates = _candidates(evaluator.groups.sizes, 20)
    pairs = np.array(
        [
            [each.evaluate(widths).measures["accuracy"] for each in (coarse, evaluator)]
            for widths in candidates
        ]
    )
    assert np.abs(pairs[:, 0] - pairs[:, 1]).mean() <= 0.01
    assert np.corrcoef(pairs.T)[0, 1] >= 0.99


def test_the_key_changes_with_everything_that_decides_an_evaluation(
    digits_task: PruningTask, evaluator: CandidateEvaluator
) -> None:
    base: dict[str, Any] = {"precision": "fp32"}
    others = [
        {"criterion": "l1"},
        {"repair": "none"},
        {"recalibration": 17},
        {"precision": "bf16"},
        {"measures": ("accuracy",)},
    ]
    keys = {build_evaluator(digits_task, EvaluatorSpec(**(base | o)), 0).key for o in others}
    keys.add(build_evaluator(digits_task, EvaluatorSpec(**base), 1).key)
    assert len(keys | {evaluator.key}) == len(others) + 2


_OWN_CRITERION = """
import numpy as np
from prunetune.models import Criterion


class Mine(Criterion):
    name = "mine"

    def __init__(self, turn: bool = False) -> None:
        self.turn = turn

    def rank(self, group, evidence):
        order = np.arange(group.size)
        return order[::-1].copy() if self.turn else order
"""


def test_a_criterion_takes_parameters_and_its_plain_name_keeps_its_key(
    digits_task: PruningTask, evaluator: CandidateEvaluator, tmp_path: Path
) -> None:
    name = str(evaluator._spec.criterion.name)
    written = EvaluatorSpec.model_validate({"criterion": {"name": name}, "precision": "fp32"})
    # As keys were made of it when a criterion was a plain string.
    assert written.model_dump(mode="json")["criterion"] == name
    assert build_evaluator(digits_task, written, 0).key == evaluator.key
    (tmp_path / "own.py").write_text(_OWN_CRITERION)
    own = f"{tmp_path}/own.py:Mine"
    plain, turned = (
        build_evaluator(
            digits_task,
            EvaluatorSpec.model_validate({"criterion": criterion, "precision": "fp32"}),
            0,
        )
        for criterion in (own, {"name": own, "parameters": {"turn": True}})
    )
    assert plain.key != turned.key
    for one, other in zip(
        plain.builder.statistics.orders, turned.builder.statistics.orders, strict=True
    ):
        assert one.tolist() == other.tolist()[::-1] == list(range(len(one)))


def test_kept_units_are_the_first_of_the_ranking(evaluator: CandidateEvaluator) -> None:
    sizes = evaluator.groups.sizes
    half = tuple(size // 2 for size in sizes)
    for order, kept in zip(
        evaluator.builder.statistics.orders, evaluator.kept_units(half), strict=True
    ):
        assert kept.tolist() == sorted(order[: len(kept)].tolist())


def test_statistics_come_from_the_cache(
    digits_task: PruningTask, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EvaluatorSpec(criterion="l2", precision="fp32")
    first = build_evaluator(digits_task, spec, 5)

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("moments were gathered again")

    monkeypatch.setattr("prunetune.models.statistics.gather_moments", forbidden)
    second = build_evaluator(digits_task, spec, 5)
    widths = _candidates(first.groups.sizes, 1)[0]
    assert _numbers(first.evaluate(widths)) == _numbers(second.evaluate(widths))


def test_unknown_criterion_is_named(digits_task: PruningTask) -> None:
    with pytest.raises(UnknownNameError, match="activation-residual"):
        build_evaluator(digits_task, EvaluatorSpec(criterion="activation-residul"), 0)


@pytest.mark.slow
@pytest.mark.real
def test_resnet56_at_half_width_is_repaired_without_training(
    real_data: Path, cache_folder: Path
) -> None:
    spec = TaskSpec(
        model="resnet56",
        weights=real_data / "weights" / "cifar10_resnet56.safetensors",
        data=DataSpec(name="parquet", root=real_data / "cifar10"),
        calibration=512,
        validation=100,
    )
    task = load_task(spec, 0)
    evaluator = build_evaluator(task, EvaluatorSpec(precision="fp32"), 0)
    test = task.test()
    first = dataclasses.replace(test, images=test.images[:2000], labels=test.labels[:2000])
    half = tuple(size // 2 for size in evaluator.groups.sizes)
    assert accuracy(evaluator.build(half, "quick"), first) >= 0.87
    assert accuracy(evaluator.build(half, "full"), first) >= 0.895
