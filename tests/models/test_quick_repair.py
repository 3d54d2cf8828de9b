"""Quick repair: moments and weights are NumPy's, and nothing singular breaks it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.models import slim, trace_channel_groups
from prunetune.models.calls import map_size, norms_after
from prunetune.models.hooks import hear_calls
from prunetune.models.layers import sample_sites
from prunetune.models.reductions.channels import kept_channels
from prunetune.models.repair import LayerMoments, QuickRepair, gather_moments
from prunetune.models.repair.moments import (
    RIDGE,
    covariance_with_ridge,
    moments_to_store,
    regress_columns,
    stored_moments,
)
from prunetune.models.repair.patches import layer_patches
from prunetune.models.statistics import TaskStatistics
from torch import Tensor, nn

from .networks import (
    OWN_NETWORKS,
    images_for,
    random_kept,
    relative_error,
    same_weights,
    traced_own,
    weights_of,
)


def _all_sites(layer: nn.Module, outputs: Tensor) -> Any:
    return sample_sites(len(outputs), map_size(layer, outputs), 10**9, torch.Generator())


def _all_patches(network: nn.Module, name: str, images: Tensor) -> Tensor:
    """Everything that a layer reads, [rows, columns]."""
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    seen: list[Tensor] = []

    def read(module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        seen.append(layer_patches(module, inputs, _all_sites(module, output)))

    handle = hear_calls(layer, read)
    with torch.no_grad():
        network(images)
    handle.remove()
    return seen[0].double()


def _readers(groups: Any, network: nn.Module) -> list[str]:
    names = {member.layer for group in groups for member in group.readers()}
    return sorted(n for n in names if isinstance(network.get_submodule(n), nn.Conv2d | nn.Linear))


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_moments_are_numpys(name: str) -> None:
    network, groups = traced_own(name)
    images = images_for(groups, 7)
    moments = gather_moments(
        network, _readers(groups, network), images, rows=10**9, batch_size=3, held_out=0
    )
    for layer, found in moments.items():
        patches = _all_patches(network, layer, images)
        parts = patches.chunk(len(found.mean), dim=1)
        for part, mean, covariance in zip(parts, found.mean, found.covariance, strict=True):
            expected = np.cov(part.numpy(), rowvar=False, ddof=0)
            assert np.allclose(mean, part.mean(dim=0), atol=1e-5)
            assert np.allclose(covariance, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
@pytest.mark.parametrize("seed", [0, 1])
def test_weights_are_numpys_least_squares_with_ridge(name: str, seed: int) -> None:
    network, groups = traced_own(name)
    images = images_for(groups, 8)
    readers = _readers(groups, network)
    norms = norms_after(network, images)
    moments = gather_moments(network, readers, images, rows=10**9, held_out=0)
    kept = random_kept(groups, seed)
    channels = kept_channels(network, groups, kept)
    repaired, plain = slim(network, groups, kept), slim(network, groups, kept)
    QuickRepair(network, moments, norms).apply(repaired, channels)
    for reader in readers:
        outputs, inputs = channels[reader]
        dense, layer = network.get_submodule(reader), repaired.get_submodule(reader)
        assert isinstance(dense, nn.Conv2d | nn.Linear)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert inputs is not None
        patches = _all_patches(network, reader, images)
        parts = dense.groups if isinstance(dense, nn.Conv2d) else 1
        size = dense.weight.shape[1]
        kept_inputs = np.unique(inputs % size) if parts > 1 else inputs
        per_channel = patches.shape[1] // (size * parts)
        columns = (kept_inputs[:, None] * per_channel + np.arange(per_channel)).reshape(-1)
        weights, shifts = [], []
        for part, rows in zip(
            patches.chunk(parts, dim=1), dense.weight.detach().double().chunk(parts), strict=True
        ):
            x = part.numpy()
            w = rows.reshape(len(rows), -1).numpy()
            centred = x - x.mean(axis=0)
            ridge = np.sqrt(RIDGE * centred.var(axis=0).mean() * len(x))
            # The ridge as rows of data: they pull the weights to the ones that were there.
            data = np.vstack([centred[:, columns], ridge * np.eye(len(columns))])
            target = np.vstack([centred @ w.T, ridge * w[:, columns].T])
            solved = np.linalg.lstsq(data, target, rcond=None)[0].T
            weights.append(solved.reshape(len(rows), len(kept_inputs), *dense.weight.shape[2:]))
            shifts.append(w @ x.mean(axis=0) - solved @ x.mean(axis=0)[columns])
        weight, shift = np.concatenate(weights), np.concatenate(shifts)
        if outputs is not None:
            weight, shift = weight[outputs], shift[outputs]
        assert np.allclose(layer.weight, weight, atol=1e-3 * np.abs(weight).max()), reader
        before = plain.get_submodule(reader)
        if layer.bias is not None:
            assert isinstance(before, nn.Conv2d | nn.Linear)
            assert before.bias is not None
            moved = (layer.bias - before.bias).detach().numpy()
            assert np.allclose(moved, shift, atol=1e-3 * max(1, np.abs(shift).max()))
        elif reader in norms:
            mean = plain.get_buffer(f"{norms[reader]}.running_mean")
            moved = (mean - repaired.get_buffer(f"{norms[reader]}.running_mean")).numpy()
            assert np.allclose(moved, shift, atol=1e-3 * max(1, np.abs(shift).max()))


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_with_all_channels_kept_nothing_changes(name: str) -> None:
    network, groups = traced_own(name)
    images = images_for(groups)
    norms = norms_after(network, images)
    moments = gather_moments(network, _readers(groups, network), images)
    kept = [np.arange(size) for size in groups.sizes]
    repaired = slim(network, groups, kept)
    QuickRepair(network, moments, norms).apply(repaired, kept_channels(network, groups, kept))
    with torch.no_grad():
        assert relative_error(repaired(images), network(images)) <= 1e-5


class _Pair(nn.Module):
    """A producer and a reader of any kind."""

    def __init__(self, reader: nn.Module, channels: int, norm: bool) -> None:
        super().__init__()
        self.producer = nn.Conv2d(3, channels, 3, padding=1)
        self.reader = reader
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.linear = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.producer(x).relu()
        if isinstance(self.reader, nn.Linear):
            x = x.flatten(1)
        x = self.norm(self.reader(x)).relu()
        return self.linear(x.mean(dim=(2, 3)) if x.dim() == 4 else x)


_READERS = {
    "1x1": lambda: nn.Conv2d(8, 4, 1),
    "3x3 with stride": lambda: nn.Conv2d(8, 4, 3, 2, 1, bias=False),
    "5x5 dilated": lambda: nn.Conv2d(8, 4, 5, padding=4, dilation=2),
    "7x7": lambda: nn.Conv2d(8, 4, 7, padding=3, bias=False),
    "grouped": lambda: nn.Conv2d(8, 4, 3, padding=1, groups=2),
    "linear after flatten": lambda: nn.Linear(8 * 64, 4),
}


def _repaired_pair(
    kind: str, kept_units: int, prepare: Any, images: Tensor
) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    reader = _READERS[kind]()
    grouped = isinstance(reader, nn.Conv2d) and reader.groups > 1
    norm = isinstance(reader, nn.Conv2d) and reader.bias is None
    network = _Pair(reader, 8, norm).eval()
    with torch.no_grad():
        prepare(network)
    groups = trace_channel_groups(network, images[:1], "all")
    kept = [np.arange(size) for size in groups.sizes]
    assert groups.groups[0].name == "producer"
    kept[0] = np.arange(kept_units // 2 if grouped else kept_units)
    moments = gather_moments(network, ["reader", "linear"], images, rows=10**9, held_out=0)
    slimmed = slim(network, groups, kept)
    norms = norms_after(network, images)
    QuickRepair(network, moments, norms).apply(slimmed, kept_channels(network, groups, kept))
    return network, slimmed


@pytest.mark.parametrize("kind", sorted(_READERS))
def test_exact_when_kept_channels_span_the_removed_ones(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without ridge the regression is exact; with it, nearly.
    monkeypatch.setattr("prunetune.models.repair.gathering.RIDGE", 1e-5)
    images = torch.randn(64, 3, 8, 8)

    def duplicate(network: Any) -> None:
        # Unit u + 4 copies unit u (of each convolution group: channels 4g + 2.. copy 4g ..).
        step = 2 if kind == "grouped" else 4
        for start in range(0, 8, 2 * step):
            for channel in range(start, start + step):
                for weights in (network.producer.weight, network.producer.bias):
                    weights[channel + step] = weights[channel]

    network, slimmed = _repaired_pair(kind, 4, duplicate, images)
    with torch.no_grad():
        assert relative_error(slimmed(images), network(images)) <= 1e-3


@pytest.mark.parametrize("kind", sorted(_READERS))
@pytest.mark.parametrize("trouble", ["dead", "all dead", "constant", "huge constant"])
def test_dead_and_constant_channels_are_safe(kind: str, trouble: str) -> None:
    def spoil(network: Any) -> None:
        chosen = slice(None) if trouble != "dead" else [1, 3, 6]
        network.producer.weight[chosen] = 0
        value = {"constant": 0.37, "huge constant": 1234.5}.get(trouble, -1.0)
        network.producer.bias[chosen] = value

    images = torch.randn(16, 3, 8, 8)
    network, slimmed = _repaired_pair(kind, 4, spoil, images)
    with torch.no_grad():
        found, expected = slimmed(images), network(images)
    assert torch.isfinite(found).all()
    if trouble != "dead" and kind == "1x1":  # nothing but constants is lost: the bias takes them
        assert relative_error(found, expected) <= 1e-3


@settings(deadline=None, max_examples=25)
@given(rank=st.integers(0, 6), seed=st.integers(0, 1000), scale=st.floats(1e-12, 1e6))
def test_singular_moments_are_safe(rank: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    factor = scale * torch.randn(6, rank, generator=generator, dtype=torch.float64)
    regular = covariance_with_ridge(factor @ factor.mT)
    matrix = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    kept = torch.tensor([0, 2, 5])
    assert torch.isfinite(regress_columns(matrix, regular, kept)).all()
    assert torch.allclose(regress_columns(matrix, regular, torch.arange(6)), matrix, atol=1e-6)


def test_repair_never_fits_worse_than_leaving_the_weights() -> None:
    network, groups = traced_own("SmallNet")
    images = images_for(groups, 16)
    moments = gather_moments(network, ["blocks.0.conv2"], images, rows=10**9, held_out=0)
    repair = QuickRepair(network, moments, {})
    x = _all_patches(network, "blocks.0.conv2", images)
    weight = network.get_submodule("blocks.0.conv2").weight.detach().double()  # type: ignore[union-attr,operator]
    index = next(i for i, group in enumerate(groups) if group.name == "blocks.0.conv1")
    for seed in range(5):
        kept = [np.arange(size) for size in groups.sizes]
        kept[index] = random_kept(groups, seed)[index]
        slimmed = slim(network, groups, kept)
        repair.apply(slimmed, kept_channels(network, groups, kept))
        found = slimmed.get_submodule("blocks.0.conv2").weight.detach().double()  # type: ignore[union-attr,operator]
        columns = (kept[index][:, None] * 9 + np.arange(9)).reshape(-1)
        centred = x - x.mean(dim=0)
        wanted = centred @ weight.flatten(1).T
        before = (wanted - centred[:, columns] @ weight.flatten(1)[:, columns].T).square().mean()
        after = (wanted - centred[:, columns] @ found.flatten(1).T).square().mean()
        assert after <= before + 1e-9


def test_wide_layers_share_one_regression_over_positions() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(300, 8, 3, padding=1, bias=False)  # 2,700 columns are too many
    network = nn.Sequential(nn.Conv2d(3, 300, 1), nn.ReLU(), layer)
    images = torch.randn(40, 3, 6, 6)
    moments = gather_moments(network, ["2"], images, rows=10**9, held_out=0)["2"]
    assert moments.per_channel == 1
    assert moments.covariance.shape == (1, 300, 300)
    slimmed = nn.Sequential(network[0], network[1], nn.Conv2d(200, 8, 3, padding=1, bias=False))
    kept = np.arange(200)
    QuickRepair(network, {"2": moments}, {}).apply(slimmed, {"2": (None, kept)})
    covariance = moments.covariance[0].double().numpy()
    regular = covariance + RIDGE * np.diag(covariance).mean() * np.eye(300)
    transfer = np.linalg.solve(regular[:200, :200], regular[:200])
    expected = np.einsum("oikl,ji->ojkl", layer.weight.detach().numpy(), transfer)
    assert np.allclose(slimmed[2].weight, expected, atol=1e-4)


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_along_a_ranking_solutions_are_those_of_a_solve_of_their_own(name: str) -> None:
    network, groups = traced_own(name)
    images = images_for(groups)
    moments = gather_moments(network, _readers(groups, network), images)
    draw = np.random.default_rng(0)
    orders = tuple(draw.permutation(size) for size in groups.sizes)
    norms = norms_after(network, images)
    statistics = TaskStatistics(groups, orders, moments, norms)
    rankings = statistics.input_rankings()
    assert rankings or name == "Grouped"
    nested = QuickRepair(network, moments, norms, rankings)
    plain = QuickRepair(network, moments, norms)
    for share in (0.2, 0.6, 1.0):
        kept = statistics.kept_units([max(1, round(share * size)) for size in groups.sizes])
        channels = kept_channels(network, groups, kept)
        found, expected = slim(network, groups, kept), slim(network, groups, kept)
        nested.apply(found, channels)
        plain.apply(expected, channels)
        others = weights_of(expected)
        for key, weight in weights_of(found).items():
            assert torch.allclose(weight, others[key], atol=1e-4 * float(others[key].abs().max()))


def test_dense_network_and_moments_stay_as_they_are_and_solutions_are_reused() -> None:
    network, groups = traced_own("MobileLike")
    images = images_for(groups)
    before = weights_of(network)
    moments = gather_moments(network, _readers(groups, network), images)
    copies = {name: each.covariance.clone() for name, each in moments.items()}
    repair = QuickRepair(network, moments, norms_after(network, images))
    outputs = []
    for seed in (1, 2, 1):
        kept = random_kept(groups, seed)
        slimmed = slim(network, groups, kept)
        repair.apply(slimmed, kept_channels(network, groups, kept))
        with torch.no_grad():
            outputs.append(slimmed(images))
    assert torch.equal(outputs[0], outputs[2])
    assert same_weights(network, before)
    assert all(torch.equal(moments[name].covariance, copies[name]) for name in copies)


def test_moments_survive_storage() -> None:
    generator = torch.Generator().manual_seed(0)
    moments = {
        "a.b": LayerMoments(
            torch.rand(2, 3, generator=generator), torch.rand(2, 3, 3, generator=generator), 9
        )
    }
    again = stored_moments(moments_to_store(moments))
    assert again.keys() == moments.keys()
    assert again["a.b"].per_channel == 9
    assert torch.equal(again["a.b"].covariance, moments["a.b"].covariance)
