"""Criteria: against Torch-Pruning, NumPy, brute force and slow loops."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_pruning
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prunetune.errors import PluginError, UnknownNameError
from prunetune.models import CRITERIA, ChannelGroups, make_criterion, trace_channel_groups
from prunetune.models.calls import norms_after
from prunetune.models.criteria import Evidence, ScoreCriterion
from prunetune.models.criteria.residual import _ReaderState
from prunetune.models.groups import ChannelGroup, Member
from prunetune.models.repair import LayerMoments, gather_moments
from prunetune.models.repair.moments import RIDGE
from torch import Tensor, nn
from torch.nn import functional

from .networks import (
    OWN_NETWORKS,
    SmallNet,
    images_for,
    randomise,
    same_weights,
    traced,
    traced_own,
    weights_of,
)


def _evidence(network: nn.Module, groups: ChannelGroups, images: Tensor, seed: int = 0) -> Evidence:
    readers = {member.layer for group in groups for member in group.readers()}
    weighted = sorted(n for n in readers if hasattr(network.get_submodule(n), "weight"))
    moments = gather_moments(network, weighted, images, rows=5000)
    return Evidence(network, images, moments, norms_after(network, images), seed)


@cache
def _own_evidence(name: str) -> tuple[ChannelGroups, Evidence]:
    network, groups = traced_own(name)
    return groups, _evidence(network, groups, images_for(groups, 12))


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_every_criterion_ranks_every_unit_once(criterion: str, name: str) -> None:
    groups, evidence = _own_evidence(name)
    before = weights_of(evidence.network)
    for group in groups:
        order = make_criterion(criterion).rank(group, evidence)
        assert order.dtype == np.int64
        assert sorted(order) == list(range(group.size))
        assert np.array_equal(order, make_criterion(criterion).rank(group, evidence))
    assert same_weights(evidence.network, before)
    assert not any(module._forward_hooks for module in evidence.network.modules())


@pytest.mark.parametrize(
    ("criterion", "importance"),
    [
        ("l1", torch_pruning.importance.MagnitudeImportance(p=1, normalizer=None)),
        ("l2", torch_pruning.importance.MagnitudeImportance(p=2, normalizer=None)),
        ("bn-scale", torch_pruning.importance.BNScaleImportance(normalizer=None)),
    ],
)
def test_inner_groups_are_ranked_as_torch_pruning_ranks_them(
    criterion: str, importance: object
) -> None:
    network, groups = traced("vgg11bn")
    images = images_for(groups, 2)
    evidence = Evidence(network, images, {}, {}, 0)
    graph = torch_pruning.DependencyGraph().build_dependency(
        copy.deepcopy(network).requires_grad_(True), images[:1]
    )
    for group in groups.groups[:3]:
        layer = graph.model.get_submodule(group.name)
        prune = torch_pruning.prune_conv_out_channels
        theirs = graph.get_pruning_group(layer, prune, list(range(group.size)))
        # Ours looks at the producers alone; theirs may look at readers too.
        producer = torch_pruning.dependency.Group()
        producer._DG = theirs._DG
        producer._group = []
        wanted = (nn.BatchNorm2d,) if criterion == "bn-scale" else (nn.Conv2d,)
        for item in theirs:
            if isinstance(item.dep.target.module, wanted) and theirs._DG.is_out_channel_pruning_fn(
                item.dep.handler
            ):
                producer._group.append(item)
        expected = importance(producer).double()  # type: ignore[operator]
        found = torch.from_numpy(make_criterion(criterion).scores(group, evidence))  # type: ignore[attr-defined]
        # Their L2 is squared.
        assert torch.allclose(found, expected.sqrt() if criterion == "l2" else expected, rtol=1e-4)


def test_weight_criteria_are_numpys() -> None:
    groups, evidence = _own_evidence("MobileLike")
    group = next(each for each in groups if each.name == "expand")
    expand, depthwise = (
        evidence.network.get_submodule(name).weight.detach().double().flatten(1).numpy()  # type: ignore[union-attr,operator]
        for name in ("expand", "depthwise")
    )
    scales = [
        evidence.network.get_submodule(name).weight.detach().double().abs().numpy()  # type: ignore[union-attr,operator]
        for name in ("norm1", "norm2")
    ]
    expected = {
        "l1": np.abs(expand).sum(1) + np.abs(depthwise).sum(1),
        "l2": np.linalg.norm(expand, axis=1) + np.linalg.norm(depthwise, axis=1),
        "bn-scale": scales[0] + scales[1],
        "geometric-median": sum(
            np.linalg.norm(rows[:, None] - rows[None], axis=2).sum(1)
            for rows in (expand, depthwise)
        ),
    }
    for name, scores in expected.items():
        criterion = make_criterion(name)
        assert isinstance(criterion, ScoreCriterion)
        assert np.allclose(criterion.scores(group, evidence), scores)
        assert criterion.rank(group, evidence).tolist() == np.argsort(-scores).tolist()


def test_a_unit_of_a_grouped_convolution_has_the_weights_of_all_its_channels() -> None:
    groups, evidence = _own_evidence("GroupedNet")
    criterion = make_criterion("l1")
    assert isinstance(criterion, ScoreCriterion)
    weights = evidence.network.get_submodule("stem").weight.detach().abs().flatten(1).sum(1)  # type: ignore[union-attr,operator]
    grouped = evidence.network.get_submodule("grouped").weight.detach().abs().flatten(1).sum(1)  # type: ignore[union-attr,operator]
    assert np.allclose(criterion.scores(groups.groups[0], evidence), weights.view(4, 4).sum(0))
    assert np.allclose(criterion.scores(groups.groups[1], evidence), grouped.view(4, 6).sum(0))


def test_without_batchnorm_its_scale_falls_back_to_l1() -> None:
    torch.manual_seed(0)
    network = SmallNet(norm=False).eval()
    groups = trace_channel_groups(network, torch.rand(1, 3, 16, 16))
    evidence = Evidence(network, torch.rand(2, 3, 16, 16), {}, {}, 0)
    for group in groups:
        ranks = [make_criterion(name).rank(group, evidence) for name in ("bn-scale", "l1")]
        assert np.array_equal(*ranks)


@pytest.mark.parametrize("name", ["SmallNet", "MobileLike", "DenseNetLike", "ChannelsLast"])
def test_taylor_is_the_slow_loop(name: str) -> None:
    groups, evidence = _own_evidence(name)
    for group in groups:
        layers = list(group.members)
        reading = next(i for i, member in enumerate(layers) if member.axis == "in")
        member = layers[reading - 1]
        expected = np.zeros(group.size)
        for image in evidence.images:  # one image at a time, gradients by a retained graph
            kept: list[Tensor] = []

            def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
                kept.append(output.requires_grad_())  # noqa: B023
                kept[0].retain_grad()  # noqa: B023
                return output * 1

            module = evidence.network.get_submodule(member.layer)
            handle = module.register_forward_hook(keep)
            logits = evidence.network(image[None])
            functional.cross_entropy(logits, logits.argmax(1)).backward()
            handle.remove()
            gradient = kept[0].grad
            assert gradient is not None
            product = (kept[0].detach() * gradient)[0].double().numpy()
            if isinstance(module, nn.Linear):
                product = np.moveaxis(product, -1, 0)
            per_channel = np.abs(product.reshape(len(product), -1).sum(axis=1))
            expected += per_channel[member.channels].sum(axis=1)
        criterion = make_criterion("taylor")
        assert isinstance(criterion, ScoreCriterion)
        found = criterion.scores(group, evidence)
        assert np.allclose(found, expected / len(evidence.images), rtol=1e-3, atol=1e-7)


def test_taylor_works_when_what_follows_works_in_place() -> None:
    torch.manual_seed(0)
    network = randomise(SmallNet("in place")).requires_grad_(False)
    groups = trace_channel_groups(network, torch.rand(1, 3, 16, 16), "all")
    evidence = Evidence(network, torch.rand(6, 3, 16, 16), {}, {}, 0)
    for group in groups:
        assert len(make_criterion("taylor").rank(group, evidence)) == group.size


# Of one reader: columns of each unit, weights [R, D] and covariance with ridge [D, D].
_Reader = tuple[list[NDArray[np.int64]], NDArray[np.float64], NDArray[np.float64]]


def _brute_force_elimination(units: int, readers: list[_Reader]) -> list[int]:
    """Ranking by removing, each time, the unit whose loss costs the refitted rest least."""
    alive: list[int] = list(range(units))
    removed: list[int] = []
    while len(alive) > 1:
        costs = []
        for unit in alive:
            cost = 0.0
            for columns, weight, moment in readers:
                gone = np.concatenate([columns[other] for other in (*removed, unit)])
                kept = np.setdiff1d(np.arange(len(moment)), gone)
                fitted = np.zeros_like(weight)
                solved = np.linalg.solve(moment[np.ix_(kept, kept)], moment[kept] @ weight.T)
                fitted[:, kept] = solved.T
                lost = weight - fitted
                cost += float(np.trace(lost @ moment @ lost.T))
            costs.append(cost)
        removed.append(alive.pop(int(np.argmin(costs))))
    return [*alive, *reversed(removed)]


def _with_ridge(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    return covariance + RIDGE * np.diag(covariance).mean() * np.eye(len(covariance))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), units=st.integers(2, 7), kernel=st.sampled_from([1, 3]))
def test_activation_residual_is_brute_force(seed: int, units: int, kernel: int) -> None:
    draw = np.random.default_rng(seed)
    positions = kernel * kernel
    size = units * positions
    network = nn.Module()
    members, moments, norms, readers = [], {}, {}, []
    members.append(Member("producer", "out", np.arange(units)[:, None]))
    for index in range(2):
        layer = nn.Conv2d(units, 3, kernel, bias=False)
        norm = nn.BatchNorm2d(3)
        norm.running_var.copy_(torch.from_numpy(draw.uniform(0.5, 2, 3)))
        norm.weight.data.copy_(torch.from_numpy(draw.uniform(0.5, 2, 3)))
        network.add_module(f"reader{index}", layer)
        network.add_module(f"norm{index}", norm)
        data = draw.normal(size=(3 * size, size)) @ draw.normal(size=(size, size))
        covariance = np.cov(data, rowvar=False, ddof=0).astype(np.float32)
        moments[f"reader{index}"] = LayerMoments(
            torch.zeros(1, size), torch.from_numpy(covariance)[None], positions
        )
        members.append(Member(f"reader{index}", "in", np.arange(units)[:, None]))
        weight = layer.weight.detach().double().flatten(1).numpy()
        if index == 0:  # only one of the two is followed by BatchNorm
            norms["reader0"] = "norm0"
            scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
            weight = weight * scale.numpy()[:, None]
        columns = [np.arange(unit * positions, (unit + 1) * positions) for unit in range(units)]
        readers.append((columns, weight, _with_ridge(covariance.astype(np.float64))))
    group = ChannelGroup("producer", units, tuple(members))
    evidence = Evidence(network, torch.zeros(1), moments, norms, 0)
    found = make_criterion("activation-residual").rank(group, evidence)
    assert found.tolist() == _brute_force_elimination(units, readers)


@pytest.mark.parametrize("name", ["GroupedNet", "MobileLike", "DenseNetLike", "ChannelsLast"])
def test_activation_residual_of_real_groups_is_brute_force(name: str) -> None:
    groups, evidence = _own_evidence(name)
    for group in groups:
        readers: list[_Reader] = []
        for member in group.readers():
            layer = evidence.network.get_submodule(member.layer)
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            moments = evidence.moments[member.layer]
            positions = moments.per_channel
            size = layer.weight.shape[1]
            parts = layer.groups if isinstance(layer, nn.Conv2d) else 1
            # One block-diagonal problem, the convolution groups behind each other.
            matrix = np.zeros((len(layer.weight), parts * size * positions))
            moment = np.zeros((matrix.shape[1], matrix.shape[1]))
            weight = layer.weight.detach().double().flatten(1).numpy()
            if member.layer in evidence.norms:
                norm = evidence.network.get_submodule(evidence.norms[member.layer])
                assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
                assert norm.running_var is not None
                scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
                weight = weight * scale.double().numpy()[:, None]
            for part in range(parts):
                inside = slice(part * size * positions, (part + 1) * size * positions)
                rows = slice(part * len(matrix) // parts, (part + 1) * len(matrix) // parts)
                matrix[rows, inside] = weight[rows]
                moment[inside, inside] = moments.with_ridge(part).numpy()
            columns = [
                np.array([c * positions + p for c in channels for p in range(positions)])
                for channels in member.channels
            ]
            readers.append((columns, matrix, moment))
        expected = _brute_force_elimination(group.size, readers)
        found = make_criterion("activation-residual").rank(group, evidence)
        assert found.tolist() == expected


def test_a_dead_channel_and_one_of_two_duplicates_go_first() -> None:
    network = nn.Module()
    layer = nn.Conv2d(4, 3, 1)
    network.add_module("reader", layer)
    data = np.random.default_rng(0).normal(size=(1000, 4))
    data[:, 2] = data[:, 1]
    data[:, 3] = 0
    covariance = torch.from_numpy(np.cov(data, rowvar=False)).float()[None]
    moments = {"reader": LayerMoments(torch.zeros(1, 4), covariance, 1)}
    channels = np.arange(4)[:, None]
    group = ChannelGroup("p", 4, (Member("p", "out", channels), Member("reader", "in", channels)))
    evidence = Evidence(network, torch.zeros(1), moments, {}, 0)
    order = make_criterion("activation-residual").rank(group, evidence).tolist()
    assert set(order[:2]) in ({0, 1}, {0, 2})


@settings(deadline=None)
@given(size=st.integers(1, 300), seed=st.integers(0, 2**63 - 1))
def test_random_depends_on_the_seed_and_the_group_alone(size: int, seed: int) -> None:
    empty = nn.Module()

    def rank(name: str, seed: int) -> list[int]:
        evidence = Evidence(empty, torch.zeros(1), {}, {}, seed)
        group = ChannelGroup(name, size, ())
        return make_criterion("random").rank(group, evidence).tolist()

    assert rank("conv", seed) == rank("conv", seed)
    assert sorted(rank("conv", seed)) == list(range(size))
    if size > 20:
        assert rank("conv", seed) != rank("conv", seed + 1)
        assert rank("conv", seed) != rank("conv2", seed)


def test_names_and_the_users_own_criterion(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "from prunetune.models import Criterion\n"
        "class Backwards(Criterion):\n"
        "    name = 'backwards'\n"
        "    def rank(self, group, evidence):\n"
        "        return np.arange(group.size)[::-1].astype(np.int64)\n"
        "class NoCriterion: pass\n"
    )
    groups, evidence = _own_evidence("SmallNet")
    order = make_criterion(f"{file}:Backwards").rank(groups.groups[0], evidence)
    assert order[0] == groups.groups[0].size - 1
    with pytest.raises(PluginError, match="must be a subclass of"):
        make_criterion(f"{file}:NoCriterion")
    with pytest.raises(UnknownNameError, match="taylor"):
        make_criterion("tailor")


def _wide_pair(units: int) -> tuple[nn.Sequential, ChannelGroup, Evidence]:
    torch.manual_seed(0)
    first, last = nn.Linear(8, units), nn.Linear(units, 40)
    network = nn.Sequential(nn.Flatten(), first, nn.ReLU(), last).eval()
    images = torch.randn(2000, 2, 2, 2)
    moments = gather_moments(network, ["3"], images)
    group = next(each for each in trace_channel_groups(network, images[:1]) if each.name == "1")
    return network, group, Evidence(network, images, moments, {}, 0)


def test_elimination_that_would_take_too_long_goes_by_several_units_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, group, evidence = _wide_pair(96)
    criterion = make_criterion("activation-residual")
    with torch.no_grad():
        network[3].weight[:, 1::2] *= 1e-3
    one_by_one = criterion.rank(group, evidence)
    whole = criterion.seconds(group, evidence)
    steps = []
    growth = _ReaderState.growth

    def counted(state: _ReaderState, units: Tensor) -> Tensor:
        steps.append(len(units))
        return growth(state, units)

    monkeypatch.setattr(_ReaderState, "growth", counted)
    work = 96 * (96**2 + 4 * 40 * 96)
    monkeypatch.setattr("prunetune.models.criteria.residual._MOST_WORK", work / 8)
    quicker = criterion.rank(group, evidence)
    assert len(steps) == 96 // 8
    assert criterion.seconds(group, evidence) == pytest.approx(whole / 8)
    assert sorted(quicker.tolist()) == list(range(96))
    # Units that hardly count go first, either way.
    assert set(quicker[:48].tolist()) == set(one_by_one[:48].tolist()) == set(range(0, 96, 2))
