"""No repair makes a network worse than it was before: calibration images held out decide."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from prunetune.models import Candidate, PruningTask, gather_statistics
from prunetune.models.builder import CandidateBuilder
from prunetune.models.divergence import divergence
from prunetune.models.progress import KeptNotes
from prunetune.models.repair.block import BlockRepair, BlockSchedule
from prunetune.models.repair.full import FullRepair
from prunetune.models.repair.held_out import HeldOutImages, held_out_count
from torch import Tensor, nn

from .networks import same_weights


def _with_images(task: PruningTask, count: int) -> PruningTask:
    images = task.calibration[:count].clone()
    return dataclasses.replace(task, calibration=images, digest=f"{task.digest}/{count}")


def _builder(task: PruningTask) -> CandidateBuilder:
    return CandidateBuilder(task, gather_statistics(task, "l1", 0))


def _share(builder: CandidateBuilder, share: float) -> Candidate:
    sizes = builder.statistics.groups.sizes
    return tuple(max(1, round(share * size)) for size in sizes)


def _divergence(network: nn.Module, task: PruningTask, images: Tensor) -> float:
    with torch.no_grad():
        return float(divergence(network(images), task.network(images), 4.0).mean())


@pytest.mark.parametrize("count", [8, 32])
def test_with_few_images_a_repair_is_about_as_good_as_the_one_before_on_fresh_images(
    digits_task: PruningTask, count: int
) -> None:
    task = _with_images(digits_task, count)
    builder = _builder(task)
    fresh = digits_task.validation.images
    for share in (0.5, 0.95):
        candidate = _share(builder, share)
        found = {
            repair: _divergence(builder.build(candidate, repair), task, fresh)
            for repair in ("none", "quick", "light", "full", "block")
        }
        # What is best on a few images is not always best on others, but nearly.
        assert found["quick"] <= 1.1 * found["none"], found
        assert found["full"] <= 1.3 * found["quick"], found
        assert found["light"] <= 1.3 * found["quick"], found
        assert found["block"] <= 1.3 * found["full"], found


@pytest.mark.parametrize("repair", ["quick", "light", "full", "block"])
def test_a_repair_that_does_harm_is_left_out_with_a_note(
    digits_task: PruningTask, monkeypatch: pytest.MonkeyPatch, repair: str
) -> None:
    builder = _builder(_with_images(digits_task, 64))
    # With everything kept nothing is to be repaired; recalibration of few images does harm.
    candidate = _share(builder, 1.0)
    apply = FullRepair.apply

    def harmful(*arguments: object) -> nn.Module:
        repaired = apply(*arguments)  # type: ignore[arg-type]
        for value in repaired.parameters():
            value.data.mul_(3.0)
        return repaired

    monkeypatch.setattr(FullRepair, "apply", harmful)
    said = KeptNotes()
    network = builder.build(candidate, repair, said)  # type: ignore[arg-type]
    judge = HeldOutImages(digits_task.network, builder._task.calibration)
    assert judge.divergence(network) <= 1e-6
    assert len(said.notes) == 1 and "is left out" in said.notes[0]


def test_where_images_are_many_every_repair_is_kept_without_a_word(
    digits_task: PruningTask,
) -> None:
    builder = _builder(digits_task)
    candidate = _share(builder, 0.5)
    said = KeptNotes()
    full = builder.build(candidate, "full", said)
    assert not said.notes
    judge = HeldOutImages(digits_task.network, digits_task.calibration)
    repaired = builder.slim(candidate, "full")
    assert judge.divergence(full) == pytest.approx(judge.divergence(repaired), rel=1e-4)


def test_what_is_delivered_has_not_seen_the_images_that_judge_it(
    digits_task: PruningTask,
) -> None:
    task = _with_images(digits_task, 48)
    images = task.calibration.clone()
    count = held_out_count(len(images))
    images[-count:] = images[-count:].flip(3)
    other = dataclasses.replace(task, calibration=images, digest=task.digest + "/other")
    statistics = gather_statistics(task, "l1", 0)
    first, second = (CandidateBuilder(each, statistics) for each in (task, other))
    candidate = _share(first, 0.5)
    for repair in ("none", "quick", "light", "full"):
        made = first._finished(candidate, repair)  # type: ignore[arg-type]
        again = second._finished(candidate, repair)  # type: ignore[arg-type]
        assert same_weights(made, again.state_dict())


def test_a_segment_is_not_trained_without_images_to_judge_it_by(digits_task: PruningTask) -> None:
    task = _with_images(digits_task, 4)
    builder = _builder(task)
    candidate = _share(builder, 0.5)
    full = builder.slim(candidate, "full")
    channels = builder._kept_channels(candidate)
    schedule = BlockSchedule(epochs=1, learning_rate=10.0)
    for count in (1, 2):
        repaired = BlockRepair(task.network, task.calibration[:count], schedule).apply(
            full, channels
        )
        assert same_weights(full, repaired.state_dict())


@pytest.mark.parametrize("harmful", [True, False])
def test_candidates_of_a_search_get_quick_repair_where_light_repair_is_worse(
    digits_task: PruningTask, monkeypatch: pytest.MonkeyPatch, harmful: bool
) -> None:
    builder = _builder(digits_task)
    apply = FullRepair.apply

    def spoiled(*arguments: object) -> nn.Module:
        repaired = apply(*arguments)  # type: ignore[arg-type]
        for value in repaired.parameters():
            value.data.mul_(3.0)
        return repaired

    if harmful:
        monkeypatch.setattr(FullRepair, "apply", spoiled)
    said = KeptNotes()
    assert builder.judged_repair("light", said) == ("quick" if harmful else "light")
    assert len(said.notes) == int(harmful)
    assert builder.judged_repair("quick", said) == "quick"
