"""Spatial entropy of networks, against histograms of maps recorded by hand."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.errors import EvaluationError, SpecError
from prunetune.rewards import Batch
from prunetune.rewards.measures.spatial_entropy import SpatialEntropy, SpatialEntropy256
from scipy import stats
from torch import Tensor, nn


def small_network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(4),
        nn.Conv2d(8, 4, 1),
        nn.ReLU(),  # its maps are 2x2: too small
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    ).eval()


def images(count: int = 20, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def measure_on(measure: SpatialEntropy, network: nn.Module, batches: list[Tensor]) -> float:
    measure.attach(network)
    with torch.inference_mode():
        for batch in batches:
            outputs = network(batch).float()
            labels = torch.zeros(len(batch), dtype=torch.int64)
            measure.update(Batch(outputs, labels, outputs))
    values = measure.compute()
    measure.detach()
    assert tuple(values) == measure.columns
    return values[measure.columns[0]]


def hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def slow_map_entropy(
    maps: np.ndarray, low: float, high: float, bins: int, normalise: bool
) -> float:
    """Entropy of one map over images ``[N, H, W]``, every pair, with NumPy's 2-D histogram."""
    levels = np.clip(np.floor((maps - low) / (high - low) * bins), 0, bins - 1)
    edges = np.arange(bins + 1) - 0.5
    values = []
    for first, second in (
        (levels[:, :-1], levels[:, 1:]),
        (levels[:, :, :-1], levels[:, :, 1:]),
    ):
        joint = np.histogram2d(first.ravel(), second.ravel(), bins=(edges, edges))[0]
        pairs = stats.entropy(joint.ravel())
        single = (stats.entropy(joint.sum(0)) + stats.entropy(joint.sum(1))) / 2
        values.append((pairs / single - 1 if single else 0.0) if normalise else pairs)
    return float(np.mean(values))


@pytest.mark.parametrize("pool", ["batch", "image"])
@pytest.mark.parametrize("map_kind", ["channel", "channel-mean"])
@pytest.mark.parametrize("normalise", [True, False])
def test_equals_a_slow_computation_on_recorded_activations(
    pool: str, map_kind: str, normalise: bool
) -> None:
    network, batch = small_network(), images(5)
    layers = []
    with torch.inference_mode():
        first = network[:3](batch)
        second = network[3:6](first)
    for activations in (first.numpy(), second.numpy()):
        maps = activations if map_kind == "channel" else activations.mean(1, keepdims=True)
        low, high = float(maps.min()), float(maps.max())
        groups = [maps] if pool == "batch" else list(maps[:, None])
        layers.append(
            np.mean(
                [
                    slow_map_entropy(group[:, c], low, high, 8, normalise)
                    for group in groups
                    for c in range(maps.shape[1])
                ]
            )
        )
    measure = SpatialEntropy(
        bins=8, normalise=normalise, map=map_kind, pool=pool, grid=0, guard=False
    )
    measure.fit(network, [batch])

    assert measure_on(measure, network, [batch]) == pytest.approx(np.mean(layers), rel=1e-4)


@settings(deadline=None, max_examples=20)
@given(
    cut=st.integers(1, 20),
    pool=st.sampled_from(["batch", "image"]),
    map_kind=st.sampled_from(["channel", "channel-mean"]),
    quota=st.sampled_from([1, 7, 64]),
)
def test_does_not_depend_on_how_images_are_cut_into_batches(
    cut: int, pool: str, map_kind: str, quota: int
) -> None:
    network, batch = small_network(), images()
    measure = SpatialEntropy(map=map_kind, pool=pool, images=quota)
    measure.fit(network, batch.split(cut))
    ranges = dict(measure._ranges)
    # A convolution of another batch size may round differently and move a value across the edge
    # of a level; weights that are whole numbers of halves on such images leave nothing to round.
    whole = measure_on(measure, _exact(network), [_exact_images(batch)])
    parts = measure_on(measure, _exact(network), list(_exact_images(batch).split(cut)))

    assert ranges.keys() == measure._ranges.keys()
    assert parts == pytest.approx(whole, rel=1e-9)


def _exact(network: nn.Sequential) -> nn.Sequential:
    for parameter in network.parameters():
        parameter.data = (parameter.data * 8).round() / 8
    return network


def _exact_images(batch: Tensor) -> Tensor:
    return (batch * 8).round() / 8


def test_looks_at_the_first_images_only() -> None:
    network, batch = small_network(), images()
    other = torch.cat((batch[:8], images(12, seed=2)))
    measure = SpatialEntropy(images=8)
    measure.fit(network, [batch])

    assert measure_on(measure, network, [batch]) == measure_on(measure, network, [other])


def test_hooks_are_gone_once_enough_images_were_seen_and_after_detach() -> None:
    network, batch = small_network(), images()
    measure = SpatialEntropy(images=4)
    measure.fit(network, [batch])
    assert hooks(network) == 0

    measure.attach(network)
    assert hooks(network) > 0
    outputs = network(batch[:4])
    measure.update(Batch(outputs, torch.zeros(4, dtype=torch.int64), outputs))
    assert hooks(network) == 0

    measure.attach(network)
    measure.detach()
    assert hooks(network) == 0


def test_failing_forward_pass_in_fit_leaves_no_hook_behind() -> None:
    network = small_network()

    with pytest.raises(RuntimeError):
        SpatialEntropy().fit(network, [torch.randn(1, 4, 16, 16)])

    assert hooks(network) == 0


def test_levels_are_the_dense_networks_so_shrinking_activations_does_not_go_unnoticed() -> None:
    network, batch = small_network(), images()
    measure = SpatialEntropy(bins=8, normalise=False, guard=False)
    measure.fit(network, [batch])
    dense = measure_on(measure, network, [batch])
    with torch.no_grad():
        network[1].weight.mul_(1e-3)
        network[1].bias.mul_(1e-3)
        network[4].weight.mul_(1e-3)
        network[4].bias.mul_(1e-3)

    # With levels of its own the shrunken network would look like the dense one.
    assert dense > 0.5
    assert measure_on(measure, network, [batch]) == 0.0


def test_guard_makes_a_dead_layer_the_worst_and_without_it_the_best() -> None:
    network, dead, batch = small_network(), small_network(), images()
    with torch.no_grad():
        for layer in (dead[0], dead[4]):
            layer.weight.zero_()
            layer.bias.fill_(-1.0)
        dead[1].bias.fill_(-1.0)
    for guard, expected in ((True, 1.0), (False, 0.0)):
        measure = SpatialEntropy(guard=guard)
        measure.fit(network, [batch])
        assert measure_on(measure, dead, [batch]) == expected
    measure = SpatialEntropy256()
    measure.fit(network, [batch])
    assert measure_on(measure, dead, [batch]) == pytest.approx(2 * math.log(256))


def test_guard_leaves_a_dead_channel_out_of_the_mean() -> None:
    network, batch = small_network(), images()
    alive = SpatialEntropy()
    alive.fit(network, [batch])
    with torch.no_grad():
        network[1].weight[2] = 0.0
        network[1].bias[2] = -1.0
        network[4].weight[:, 2] = 0.0
    slim = small_network()
    slim.load_state_dict(network.state_dict())
    keep = torch.tensor([0, 1, 3, 4, 5])
    slim[0].weight.data, slim[0].bias.data = slim[0].weight[keep], slim[0].bias[keep]
    slim[1] = nn.BatchNorm2d(5).eval()
    for name in ("weight", "bias"):
        getattr(slim[1], name).data = getattr(network[1], name)[keep]
    slim[4].weight.data = slim[4].weight[:, keep]

    assert measure_on(alive, network, [batch]) == pytest.approx(
        measure_on(alive, slim, [batch]), abs=2e-3
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_precision_and_memory_format_hardly_matter(
    dtype: torch.dtype, layout: torch.memory_format
) -> None:
    reference = SpatialEntropy()
    reference.fit(small_network(), [images()])
    expected = measure_on(reference, small_network(), [images()])
    network = small_network().to(dtype=dtype, memory_format=layout)  # type: ignore[call-overload]
    batch = images().to(dtype=dtype, memory_format=layout)
    measure = SpatialEntropy()
    measure.fit(network, [batch])

    assert measure_on(measure, network, [batch]) == pytest.approx(expected, abs=0.02)


def test_shared_rectifier_counts_once_per_call() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            wide = self.relu(x)
            narrow = self.relu(x[:, :2, ::2, ::2] - 0.5)
            return wide.mean((2, 3)) + narrow.sum()

    network, batch = Shared(), images()
    measure = SpatialEntropy()
    measure.fit(network, batch.split(9))

    assert list(measure._ranges) == ["relu", "relu#2"]
    assert 0.9 < measure_on(measure, network, list(batch.split(9))) <= 1.0


def test_fitted_measure_travels_and_measures_the_same() -> None:
    measure = SpatialEntropy()
    measure.fit(small_network(), [images()])
    travelled = pickle.loads(pickle.dumps(measure))

    expected = measure_on(measure, small_network(), [images()])
    assert measure_on(travelled, small_network(), [images()]) == expected


def test_unfitted_measure_and_network_without_maps_say_what_is_wrong() -> None:
    with pytest.raises(EvaluationError, match="fitted on the dense network"):
        SpatialEntropy().attach(small_network())
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU())
    with pytest.raises(EvaluationError, match="no activation map"):
        SpatialEntropy().fit(flat, [torch.randn(2, 3, 2, 2)])
    with pytest.raises(EvaluationError, match="not finite"):
        SpatialEntropy().fit(small_network(), [torch.full((2, 3, 16, 16), torch.nan)])


@pytest.mark.parametrize(
    "parameters",
    [
        {"bins": 1},
        {"bins": 64},
        {"bins": 257, "map": "channel-mean"},
        {"images": 0},
        {"grid": -1},
        {"map": "row"},
        {"pool": "none"},
    ],
)
def test_parameter_out_of_range_is_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="spatial-entropy"):
        SpatialEntropy(**parameters)
