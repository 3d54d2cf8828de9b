"""Evaluation on a sample of the validation images: unbiased, with an honest standard error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prunetune.errors import SpecError
from prunetune.models import PruningTask
from prunetune.rewards import Batch, CandidateEvaluator, EvaluatorSpec, build_evaluator
from prunetune.rewards.evaluation.sampling import (
    Sample,
    anticipated_deviations,
    check_count,
    draw_sample,
    standard_error,
)
from prunetune.rewards.measures.accuracy import Accuracy, Loss
from prunetune.rewards.measures.agreement import Agreement
from prunetune.rewards.measures.feature_distance import FeatureDistance
from torch import nn

_ESTIMATED = {"accuracy", "loss", "agreement"}
_OF_FIRST_IMAGES = {"spatial-entropy", "spatial-entropy-256", "neuron-entropy"}


@pytest.fixture(scope="module")
def whole(digits_task: PruningTask) -> CandidateEvaluator:
    return build_evaluator(digits_task, EvaluatorSpec(precision="fp32"), 0)


@pytest.fixture(scope="module")
def sampled(digits_task: PruningTask) -> CandidateEvaluator:
    return build_evaluator(digits_task, EvaluatorSpec(precision="fp32", images=180), 0)


def _half(evaluator: CandidateEvaluator) -> tuple[int, ...]:
    return tuple(size // 2 for size in evaluator.groups.sizes)


def _estimate(values: NDArray[np.float64], sample: Sample) -> float:
    return float(values[sample.indices] @ sample.weights / sample.weights.sum())


def test_mean_and_variance_are_unbiased_over_all_samples_that_can_be_drawn() -> None:
    rng = np.random.default_rng(0)
    deviations, values = rng.uniform(0.1, 3.0, 9), rng.normal(size=9)

    drawn = {
        tuple(sample.indices.tolist()): sample
        for sample in (draw_sample(deviations, 5, 1, seed) for seed in range(600))
    }

    samples = list(drawn.values())
    # The first is certain; any choice within a stratum is as likely as any other.
    one = samples[0]
    sizes = [int((one.strata == stratum).sum()) for stratum in np.unique(one.strata)]
    totals = [round(one.weights[one.strata == stratum].sum()) for stratum in np.unique(one.strata)]
    assert sizes == [1, 2, 2]
    assert len(samples) == math.prod(math.comb(*pair) for pair in zip(totals, sizes, strict=True))
    estimates = [_estimate(values, sample) for sample in samples]
    variances = [standard_error(values[sample.indices], sample) ** 2 for sample in samples]
    assert np.mean(estimates) == pytest.approx(values.mean(), abs=1e-12)
    assert np.mean(variances) == pytest.approx(np.var(estimates), rel=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    deviations=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=80),
    share=st.floats(0, 1),
    leading=st.integers(0, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_sample_stands_for_all_images(
    deviations: list[float], share: float, leading: int, seed: int
) -> None:
    images = len(deviations)
    leading = min(leading, images - 2)
    count = leading + 2 + round(share * (images - leading - 2))

    sample = draw_sample(np.array(deviations), count, leading, seed)

    assert len(sample) == count
    assert (np.diff(sample.indices) > 0).all()
    assert sample.weights.sum() == pytest.approx(images)
    assert sample.indices[:leading].tolist() == list(range(leading))
    assert (sample.weights[:leading] == 1).all()
    for stratum in np.unique(sample.strata):
        weights = sample.weights[sample.strata == stratum]
        assert weights.min() == weights.max() >= 1
        assert len(weights) >= 2 or weights[0] == 1
    if count == images:
        assert draw_sample(np.array(deviations), count, images + 9, seed).weights.max() == 1
        assert sample.weights.tolist() == [1] * images
        assert standard_error(np.array(deviations), sample) == 0


def test_images_on_which_candidates_differ_are_sure_to_be_drawn() -> None:
    rng = np.random.default_rng(1)
    deviations = np.where(np.arange(400) % 10 == 3, 5.0, 0.1)
    values = rng.normal(size=400) * deviations

    estimates, errors = [], []
    for seed in range(200):
        sample = draw_sample(deviations, 100, 0, seed)
        assert set(range(3, 400, 10)) <= set(sample.indices.tolist())
        estimates.append(_estimate(values, sample))
        errors.append(standard_error(values[sample.indices], sample))

    simple = values.std(ddof=1) * np.sqrt((1 - 100 / 400) / 100)
    assert np.std(estimates) < simple / 10
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(estimates), rel=0.2)


def test_anticipated_deviations_by_hand() -> None:
    right = np.array([[1.0, 1.0, 1.0, 0.0]])
    confidence = np.array([[1.0, 1.0, 0.5, 0.0]])
    divergence = np.array([[0.0, 0.0, 0.0, 4.0]])

    squares = anticipated_deviations(right, confidence, divergence) ** 2 - 0.01

    # Deviations of accuracy from 3/4 and of divergence from 1, and one answer that may flip.
    assert squares.tolist() == pytest.approx([1 / 3 + 1 / 3, 2 / 3, 2 / 3 + 4, 3 + 3])


def test_references_that_say_nothing_are_left_out() -> None:
    broken = np.full((1, 3), np.nan)
    perfect = np.ones((1, 3))

    assert anticipated_deviations(broken, broken, broken).tolist() == pytest.approx([0.1] * 3)
    assert anticipated_deviations(perfect, perfect, 0 * perfect).tolist() == pytest.approx(
        [0.1] * 3
    )


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (101, "more than the 100 validation images there are"),
        (65, "too few, because measures look at the first 64"),
    ],
)
def test_a_sample_that_cannot_be_drawn_is_refused(count: int, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        check_count(count, 100, 64)
    with pytest.raises(SpecError, match=said):
        draw_sample(np.ones(100), count, 64, 0)


@pytest.mark.parametrize("measure", [Accuracy, Loss, Agreement])
def test_an_image_counts_as_often_as_its_weight_says(measure: type[Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, dense = torch.randn(2, 6, 5, generator=generator)
    labels = torch.randint(5, (6,), generator=generator)
    weights = np.array([1.0, 1.0, 2.0, 2.0, 3.0, 3.0])
    sample = Sample(np.arange(6), weights, np.array([0, 0, 1, 1, 2, 2]))
    times = torch.tensor([1, 1, 2, 2, 3, 3])

    repeated, weighted = measure(), measure()
    repeated.update(Batch(*(each.repeat_interleave(times, 0) for each in (outputs, labels, dense))))
    for part in (slice(0, 4), slice(4, 6)):
        weighted.update(Batch(outputs[part], labels[part], dense[part], sample[part]))

    assert weighted.compute() == pytest.approx(repeated.compute())
    assert repeated.standard_errors() == {}
    values = measure().per_image(Batch(outputs, labels, dense)).double().numpy()
    # n_h N_h (N_h / n_h - 1) s_h^2 / n_h for two of two, of four and of six.
    variance = sum(
        total * (total - 2) / 2 * values[first : first + 2].var(ddof=1)
        for first, total in ((0, 2), (2, 4), (4, 6))
    )
    assert weighted.standard_errors()[measure.name] == pytest.approx(math.sqrt(variance) / 12)


def test_feature_distance_weighs_images_too() -> None:
    torch.manual_seed(0)
    dense, slim = (nn.Sequential(nn.Linear(6, wide), nn.Linear(wide, 3)) for wide in (5, 2))
    images = torch.randn(8, 6)
    times = torch.arange(1, 9) % 3 + 1
    sample = Sample(np.arange(8), times.double().numpy(), np.arange(8))
    found = []
    for seen, drawn in ((images.repeat_interleave(times, 0), None), (images, sample)):
        measure = FeatureDistance()
        measure.fit(dense, [seen])
        measure.attach(slim)
        outputs = slim(seen)
        measure.update(Batch(outputs, torch.zeros(len(seen), dtype=torch.int64), outputs, drawn))
        found.append(measure.compute()[measure.name])

    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_all_images_are_what_is_evaluated_by_default(
    digits_task: PruningTask, whole: CandidateEvaluator
) -> None:
    count = len(digits_task.validation)
    named = build_evaluator(digits_task, EvaluatorSpec(precision="fp32", images=count), 0)
    expected, found = (each.evaluate(_half(whole)) for each in (whole, named))

    assert found.measures == expected.measures
    assert found.standard_errors == expected.standard_errors == {}


def test_estimates_are_near_what_all_images_give(
    whole: CandidateEvaluator, sampled: CandidateEvaluator
) -> None:
    rng = np.random.default_rng(0)
    sizes = whole.groups.sizes
    off: dict[str, list[float]] = {name: [] for name in _ESTIMATED}
    errors: dict[str, list[float]] = {name: [] for name in _ESTIMATED}
    for _ in range(12):
        widths = tuple(int(rng.integers(size // 3, size + 1)) for size in sizes)
        expected, found = whole.evaluate(widths), sampled.evaluate(widths)
        assert set(found.standard_errors) == _ESTIMATED
        assert found.costs == expected.costs
        for name in _OF_FIRST_IMAGES:
            assert found.measures[name] == pytest.approx(expected.measures[name], rel=1e-6)
        distances = (each.measures["feature-distance"] for each in (found, expected))
        assert next(distances) == pytest.approx(next(distances), abs=0.1)
        for name, error in found.standard_errors.items():
            off[name].append(found.measures[name] - expected.measures[name])
            errors[name].append(error)
    for name in _ESTIMATED:
        # One sample for all candidates: they are off together.
        assert 0 < np.linalg.norm(off[name]) < 3 * np.linalg.norm(errors[name])


def test_the_dense_network_is_evaluated_on_all_images(
    whole: CandidateEvaluator, sampled: CandidateEvaluator
) -> None:
    assert sampled.dense.measures == whole.dense.measures
    assert sampled.dense.standard_errors == {}


def test_the_sample_is_the_seeds_and_part_of_the_key(
    digits_task: PruningTask, whole: CandidateEvaluator, sampled: CandidateEvaluator
) -> None:
    spec = EvaluatorSpec(precision="fp32", images=180)
    again = build_evaluator(digits_task, spec, 0)
    widths = _half(whole)

    assert again.evaluate(widths).measures == sampled.evaluate(widths).measures
    assert again.key == sampled.key != whole.key


def test_a_spec_with_too_few_or_too_many_images_is_refused(digits_task: PruningTask) -> None:
    for count in (10, len(digits_task.validation) + 1):
        with pytest.raises(SpecError, match=f"images: {count} is"):
            build_evaluator(digits_task, EvaluatorSpec(images=count), 0)
