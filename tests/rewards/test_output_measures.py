"""Measures on outputs, neuron states and features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.errors import EvaluationError, NetworkError, SpecError
from prunetune.rewards import Batch, Measure, make_measures
from prunetune.rewards.measures.accuracy import Accuracy, Loss
from prunetune.rewards.measures.agreement import Agreement, mean_divergence
from prunetune.rewards.measures.feature_distance import FeatureDistance
from prunetune.rewards.measures.neuron_entropy import NeuronEntropy, state_counts, state_entropy
from scipy import special, stats
from torch import Tensor, nn


def random_batch(count: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        outputs=torch.randn(count, 7, generator=generator) * 3,
        labels=torch.randint(7, (count,), generator=generator),
        dense_outputs=torch.randn(count, 7, generator=generator) * 3,
    )


def cut_up(batch: Batch, size: int) -> list[Batch]:
    parts = (t.split(size) for t in (batch.outputs, batch.labels, batch.dense_outputs))
    return [Batch(*part) for part in zip(*parts, strict=True)]


def gather(measure: Measure, batches: list[Batch]) -> float:
    measure.attach(nn.Identity())
    for batch in batches:
        measure.update(batch)
    return measure.compute()[measure.name]


def run(measure: Measure, network: nn.Module, batches: list[Tensor]) -> float:
    measure.attach(network)
    for images in batches:
        outputs = network(images)
        measure.update(Batch(outputs, torch.zeros(len(images), dtype=torch.int64), outputs))
    value = measure.compute()[measure.name]
    measure.detach()
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())
    return value


def test_accuracy_is_the_share_of_right_answers() -> None:
    outputs = torch.eye(4)[[0, 1, 2, 2]]
    batch = Batch(outputs, torch.tensor([0, 1, 2, 3]), outputs)

    assert gather(Accuracy(), [batch]) == 0.75


def test_loss_and_agreement_agree_with_scipy() -> None:
    batch = random_batch(50)
    log_p = special.log_softmax(batch.outputs.double().numpy(), axis=1)
    dense_p = special.softmax(batch.dense_outputs.double().numpy(), axis=1)

    assert gather(Loss(), [batch]) == pytest.approx(
        -log_p[np.arange(50), batch.labels.numpy()].mean(), rel=1e-6
    )
    assert gather(Agreement(), [batch]) == pytest.approx(
        stats.entropy(dense_p, np.exp(log_p), axis=1).mean(), rel=1e-9
    )


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_softened_agreement_is_scipys_divergence_of_softened_predictions(
    temperature: float,
) -> None:
    batch = random_batch(50)
    p, dense = (
        special.softmax(logits.double().numpy() / temperature, axis=1)
        for logits in (batch.outputs, batch.dense_outputs)
    )
    assert gather(Agreement(temperature), [batch]) == pytest.approx(
        temperature**2 * stats.entropy(dense, p, axis=1).mean(), rel=1e-9
    )


def test_very_soft_agreement_is_half_the_mean_squared_distance_of_centred_logits() -> None:
    batch = random_batch(50)
    difference = (batch.outputs - batch.dense_outputs).double()
    centred = difference - difference.mean(dim=1, keepdim=True)
    found = gather(Agreement(1e4), [batch])
    assert found == pytest.approx(float(centred.square().mean()) / 2, rel=1e-3)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(SpecError, match="must be positive"):
        Agreement(temperature)


def test_mean_divergence_is_agreement_of_two_networks() -> None:
    images = torch.randn(30, 3, 4, 4)
    network, dense = (nn.Sequential(nn.Flatten(), nn.Linear(48, 5)) for _ in range(2))
    with torch.no_grad():
        batch = Batch(network(images), torch.zeros(30, dtype=torch.int64), dense(images))
    assert mean_divergence(network, dense, images, 4.0, batch_size=7) == pytest.approx(
        gather(Agreement(4.0), [batch]), rel=1e-6
    )
    assert mean_divergence(dense, dense, images) == pytest.approx(0.0, abs=1e-12)


def test_agreement_ignores_labels_and_is_zero_only_for_equal_predictions() -> None:
    batch = random_batch(20)
    same = Batch(batch.dense_outputs + 5.0, batch.labels.flip(0), batch.dense_outputs)

    assert gather(Agreement(), [same]) == pytest.approx(0.0, abs=1e-6)
    assert gather(Agreement(), [batch]) > 0.1


@settings(deadline=None, max_examples=20)
@given(size=st.integers(1, 30), measure=st.sampled_from([Accuracy, Loss, Agreement]))
def test_means_do_not_depend_on_batch_size(size: int, measure: type[Measure]) -> None:
    batch = random_batch(30)

    assert gather(measure(), cut_up(batch, size)) == pytest.approx(
        gather(measure(), [batch]), rel=1e-6
    )


def test_attach_forgets_the_candidate_before() -> None:
    measure = Loss()
    first = gather(measure, [random_batch(10)])
    gather(measure, [random_batch(10, seed=1)])

    assert gather(measure, [random_batch(10)]) == first


def test_without_images_every_measure_is_not_a_number() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    for measure in make_measures():
        measure.fit(network, [torch.randn(4, 3, 8, 8)])
        measure.attach(network)
        values = measure.compute()
        measure.detach()
        assert tuple(values) == measure.columns
        assert all(math.isnan(value) for value in values.values())


def test_state_counts_leave_zeros_out() -> None:
    z = torch.tensor([[1.0, -1.0, 0.0], [2.0, -2.0, 0.0], [-3.0, 0.0, 0.0]])

    assert state_counts(z).tolist() == [[2, 0, 0], [1, 2, 0]]


def test_state_entropy_by_hand() -> None:
    counts = torch.tensor([[2, 0, 0, 1, 5], [2, 9, 0, 3, 0]])

    quarter = stats.entropy([0.25, 0.75], base=2)
    assert state_entropy(counts).tolist() == pytest.approx([1.0, 0.0, 0.0, quarter, 0.0])


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_neuron_entropy_is_the_mean_over_layers_of_the_mean_over_channels(
    layout: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(96, 10), nn.GELU()
    )
    images = torch.randn(12, 3, 6, 6).to(memory_format=layout)
    conv = network[0](images).detach().numpy()
    linear = network[2:4](torch.from_numpy(conv).relu()).detach().numpy()
    layers = []
    for z in (conv.transpose(1, 0, 2, 3).reshape(6, -1), linear.T):
        on = (z > 0).mean(axis=1)
        layers.append(stats.entropy([on, 1 - on], base=2, axis=0).mean())
    measure = NeuronEntropy(grid=0)
    measure.fit(network, [])

    whole = run(measure, network, [images])

    assert whole == pytest.approx(np.mean(layers), rel=1e-6)
    assert run(measure, network, list(images.split(5))) == pytest.approx(whole, rel=1e-6)


def test_guard_makes_dead_neurons_no_gain_and_without_it_they_are_the_best() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU())
    images = torch.randn(64, 3)
    alive = run(_fitted(network, guard=True), network, [images])
    # A neuron that never fires adds nothing to what the others' mean is.
    slim = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2), nn.ReLU())
    with torch.no_grad():
        network[0].weight[3], network[0].bias[3] = 0.0, -1.0
        for name in ("weight", "bias"):
            getattr(slim[0], name).copy_(getattr(network[0], name)[:3])
        slim[2].weight.copy_(network[2].weight[:, :3])
        slim[2].bias.copy_(network[2].bias)
    one_dead = run(_fitted(network, guard=True), network, [images])
    assert one_dead == pytest.approx(run(_fitted(slim, guard=True), slim, [images]))
    assert run(_fitted(network, guard=False), network, [images]) < one_dead
    with torch.no_grad():
        for layer in (network[0], network[2]):
            layer.weight.zero_()
            layer.bias.fill_(-1.0)
    assert run(_fitted(network, guard=True), network, [images]) == 1.0 > alive
    assert run(_fitted(network, guard=False), network, [images]) == 0.0


def _fitted(network: nn.Module, guard: bool) -> NeuronEntropy:
    measure = NeuronEntropy(guard=guard)
    measure.fit(network, [])
    return measure


def test_networks_without_rectifier_modules_are_read_after_normalisation() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x)).relu().mean((2, 3))

    torch.manual_seed(0)
    network = Functional().train()
    measure = NeuronEntropy()
    measure.fit(network, [])

    # In training mode BatchNorm centres every channel: about half of the values are positive.
    assert run(measure, network, [torch.randn(16, 3, 10, 10)]) > 0.99


def cka(first: np.ndarray, second: np.ndarray) -> float:
    """From the Gram matrices of centred features, the other way round than the product."""
    centre = np.eye(len(first)) - 1 / len(first)
    k, m = (centre @ x @ x.T @ centre for x in (first, second))
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def test_feature_distance_compares_networks_of_different_widths() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))
    slim = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))
    images = torch.randn(30, 3, 6, 6)
    measure = FeatureDistance()
    measure.fit(dense, images.split(11))
    features = [net[:3](images).detach().double().numpy() for net in (dense, slim)]

    assert run(measure, dense, [images]) == pytest.approx(0.0, abs=1e-5)
    assert run(measure, slim, list(images.split(7))) == pytest.approx(1 - cka(*features), abs=1e-5)


def test_constant_features_are_as_far_as_can_be() -> None:
    dense = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    measure = FeatureDistance()
    measure.fit(dense, [torch.randn(6, 1, 2, 2)])

    assert run(measure, dense, [torch.ones(6, 1, 2, 2)]) == 1.0


def test_feature_distance_says_what_it_cannot_do() -> None:
    with pytest.raises(EvaluationError, match="fitted"):
        FeatureDistance().attach(nn.Linear(2, 2))
    with pytest.raises(NetworkError, match="features"):
        FeatureDistance().fit(nn.ReLU(), [torch.randn(2, 2)])
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    measure = FeatureDistance()
    measure.fit(network, [torch.randn(3, 1, 2, 2)])
    with pytest.raises(EvaluationError, match="same validation images"):
        run(measure, network, [torch.randn(4, 1, 2, 2)])
