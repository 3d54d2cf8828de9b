"""Provable filter pruning: closed forms, slow loops, and the bound measured on fresh inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prunetune.models import ChannelsReduction, make_criterion
from prunetune.models.criteria import Evidence
from prunetune.models.criteria.importance_sampling import (
    SampledLayer,
    calibration_size,
    draws_for,
    expected_distinct,
)
from prunetune.models.criteria.provable import ProvableFilterPruning
from prunetune.models.criteria.sensitivity import input_sensitivities
from prunetune.models.groups import ChannelGroup, Member
from prunetune.testing import check_reduction
from torch import Tensor, nn

from .networks import OWN_NETWORKS, images_for, traced_own

VARIANTS = ("deterministic", "random", "partly-random")


def _slow_sensitivities(layer: nn.Conv2d, inputs: Tensor) -> np.ndarray:
    """The definition, place by place, of an ungrouped convolution without padding tricks."""
    worst = np.zeros(layer.in_channels)
    weight = layer.weight.detach().double().numpy()
    for signed in (inputs.clamp(min=0), (-inputs).clamp(min=0)):
        patches = nn.functional.unfold(signed, layer.kernel_size, padding=layer.padding)
        patches = (
            patches.view(len(inputs), layer.in_channels, -1, patches.shape[-1]).double().numpy()
        )
        for part in (np.maximum(weight, 0), np.maximum(-weight, 0)):
            kernels = part.reshape(layer.out_channels, layer.in_channels, -1)
            for image in patches:
                for place in range(image.shape[2]):
                    terms = (kernels * image[None, :, :, place]).sum(axis=2)
                    total = terms.sum(axis=1, keepdims=True)
                    shares = np.divide(terms, total, out=np.zeros_like(terms), where=total > 0)
                    worst = np.maximum(worst, shares.max(axis=0))
    return worst


def _reader(channels: int, per_unit: int = 1) -> Member:
    return Member("0", "in", np.arange(channels * per_unit).reshape(channels, per_unit))


def test_sensitivities_of_a_linear_layer_are_the_papers_formula() -> None:
    layer = nn.Linear(3, 2, bias=True)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0, -1.0], [0.0, 1.0, -3.0]]))
    inputs = torch.tensor([[1.0, 1.0, 1.0], [4.0, 1.0, 2.0]])
    found = input_sensitivities(nn.Sequential(layer), _reader(3), inputs)
    # Unit 0: 1 * 4 / (1 * 4 + 2 * 1); unit 1 is all of the positive part of output 1; unit 2 is all
    # of the negative parts.
    assert found == pytest.approx([4 / 6, 1.0, 1.0])


@pytest.mark.parametrize("padding", [0, 1])
def test_sensitivities_of_a_convolution_equal_slow_loops(padding: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 4, 3, padding=padding)
    inputs = torch.randn(3, 5, 6, 6)
    found = input_sensitivities(nn.Sequential(layer), _reader(5), inputs)
    assert found == pytest.approx(_slow_sensitivities(layer, inputs), abs=1e-5)


def test_a_unit_of_several_columns_has_their_sum() -> None:
    layer = nn.Linear(4, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    found = input_sensitivities(nn.Sequential(layer), _reader(2, 2), torch.tensor([[1.0, 2, 3, 4]]))
    assert found == pytest.approx([0.3, 0.7])


def test_draws_and_distinct_units_are_the_closed_forms() -> None:
    layer = SampledLayer(np.full(64, 0.05), events=65 * 9, failure=1e-16)
    factor = 2 * 3 * np.log(8 * 65 * 9 / 1e-16)
    assert layer.draws(10.0) == np.ceil(3 * (6 + 20) * 3.2 * factor / 100)
    probabilities = np.array([0.5, 0.3, 0.2])
    assert expected_distinct(probabilities, 2) == pytest.approx(3 - 0.25 - 0.49 - 0.64)
    rng = np.random.default_rng(0)
    drawn = [len(set(rng.choice(3, size=4, p=probabilities))) for _ in range(20_000)]
    assert expected_distinct(probabilities, 4) == pytest.approx(np.mean(drawn), abs=0.02)
    assert expected_distinct(probabilities, draws_for(probabilities, 2)) == pytest.approx(2)


def test_fewer_units_for_a_larger_error_and_back() -> None:
    layer = SampledLayer(np.linspace(0.01, 0.5, 64), events=65 * 9)
    errors = np.geomspace(1, 1e5, 30)
    kept = [layer.kept(error) for error in errors]
    assert kept == sorted(kept, reverse=True) and kept[0] > 60 and kept[-1] < 10
    for count in range(1, 64):
        error = layer.error(count)
        assert layer.kept(error) <= count
        assert layer.kept(error * 0.99) >= count
    assert layer.error(64) == 0.0


def test_calibration_images_are_the_codes_number_and_at_most_half() -> None:
    assert calibration_size(700, 64, 10_000) == int(np.ceil(3 * np.log(8 * 64 * 700 / 1e-16)))
    assert calibration_size(700, 64, 100) == 50


def test_the_bound_holds_at_least_as_often_as_it_says_on_fresh_inputs() -> None:
    """Sampling by the definition: relative errors of both parts of z, over fresh inputs."""
    rng = np.random.default_rng(0)
    failure, error = 0.1, 0.5
    weight = np.abs(rng.normal(size=(8, 400)))
    inputs = rng.gamma(2.0, size=(400, 400))
    network = nn.Sequential(nn.Linear(400, 8))
    with torch.no_grad():
        network[0].weight.copy_(torch.from_numpy(weight))
    sensitivity = input_sensitivities(network, _reader(400), torch.from_numpy(inputs[:200]).float())
    layer = SampledLayer(sensitivity, events=2.0, failure=failure)
    draws = int(layer.draws(error))
    fresh = inputs[200:]
    truth = fresh @ weight.T
    held = []
    for _ in range(20):
        counts = rng.multinomial(draws, layer.probabilities)
        estimate = fresh @ (weight * (counts / (draws * layer.probabilities))).T
        held.append(np.abs(estimate / truth - 1) <= error)
    assert np.mean(held) >= 1 - failure


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_what_readers_multiply_is_the_same_in_the_slow_oracle(variant: str, name: str) -> None:
    network, groups = traced_own(name)
    evidence = Evidence(network, images_for(groups, 12), {}, {}, 0)
    criterion = ProvableFilterPruning(variant)
    rankings = [criterion.study(group, evidence) for group in groups]
    reduction = ChannelsReduction(
        groups.groups,
        [ranking.order for ranking in rankings],
        [ranking.rescaling for ranking in rankings],
    )
    check_reduction(reduction, network, torch.rand(1, 3, 16, 16), count=4)


def test_random_units_with_their_factors_leave_readers_unbiased() -> None:
    """The mean over seeds of what a reader computes comes close to the dense network's."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3)).eval()
    group = ChannelGroup(
        "0",
        24,
        (
            Member("0", "out", np.arange(24)[:, None]),
            Member("2", "in", np.arange(24)[:, None]),
        ),
    )
    images = torch.rand(40, 6)
    with torch.no_grad():
        truth = network(images) - network[2].bias
        sums, plain = torch.zeros_like(truth), torch.zeros_like(truth)
        for seed in range(60):
            evidence = Evidence(network, images, {}, {}, seed)
            criterion = ProvableFilterPruning("random")
            ranking = criterion.study(group, evidence)
            for rescaling, total in ((ranking.rescaling, sums), (None, plain)):
                reduction = ChannelsReduction([group], [ranking.order], [rescaling])
                reduced = reduction.apply(network, (12,))
                total += reduced(images) - network[2].bias
    # How much of the dense network's output is in the mean, by least squares.
    share, without = (float((t / 60 * truth).sum() / truth.square().sum()) for t in (sums, plain))
    assert share == pytest.approx(1.0, abs=0.1)
    assert without < 0.8


def test_variants_of_sampling_keep_the_certain_units_first() -> None:
    network, groups = traced_own("SmallNet")
    evidence = Evidence(network, images_for(groups, 12), {}, {}, 0)
    group = next(iter(groups))
    partly = ProvableFilterPruning("partly-random")
    plain = make_criterion("pfp").study(group, evidence)
    ranking = partly.study(group, evidence)
    assert sorted(ranking.order) == list(range(group.size))
    assert np.all(np.diff(plain.figures["sensitivity"]) <= 0)
    assert ranking.rescaling is not None and np.all(ranking.rescaling[-1] == 1.0)
