"""Parameters that are computed on every call become plain, and their layers are pruned."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import prunetune as pt
import pytest
import torch
from prunetune.models import load_task, slim, trace_channel_groups
from prunetune.models.reductions.channels import ignore_removed
from prunetune.models.weights import load_weights, save_weights
from prunetune.models.zoo.permanent import has_computed_parameters, make_permanent
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from .networks import half_kept, randomise, relative_error


class _Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


_FORMS: dict[str, Callable[[nn.Module], object]] = {
    "_WeightNorm": parametrizations.weight_norm,
    "_SpectralNorm": parametrizations.spectral_norm,
    "WeightNorm": weight_norm,
    "SpectralNorm": spectral_norm,
    "L1Unstructured": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "_Doubled": lambda layer: parametrize.register_parametrization(layer, "weight", _Doubled()),
}


@pytest.fixture(params=_FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """One way to compute a weight."""
    return str(request.param)


def _network(form: str) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10)),
    )
    randomise(network)
    for index in (0, 3, 7):
        _FORMS[form](network[index])
    network(torch.randn(4, 3, 8, 8))  # as training leaves it, with what was computed last
    return network.eval()


def test_outputs_stay_and_layers_are_pruned(form: str) -> None:
    network = _network(form)
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        expected = network(images)
    assert has_computed_parameters(network)
    note = make_permanent(network)
    assert note is not None and form.strip("_") in note and "3 layers" in note
    assert not has_computed_parameters(network) and make_permanent(network) is None
    with torch.no_grad():
        assert relative_error(network(images), expected) <= 1e-6
    assert type(network[0]) is nn.Conv2d and isinstance(network[0].weight, nn.Parameter)
    copy.deepcopy(network)
    groups = trace_channel_groups(network, images[:1], "inner")
    assert [group.name for group in groups] == ["0", "3"]
    kept = half_kept(groups)
    with torch.no_grad():
        masked = ignore_removed(network, groups, kept)(images)
        assert relative_error(slim(network, groups, kept)(images), masked) <= 1e-5


def test_a_network_of_a_session_is_copied_and_left_as_it_was(form: str) -> None:
    network = _network(form)
    names = list(network.state_dict())
    images = torch.randn(60, 3, 8, 8)
    labels = torch.arange(60) % 10
    task = pt.Task(network, train=(images, labels), test=(images, labels))
    assert list(network.state_dict()) == names
    loaded = load_task(task.spec, 0).network
    assert not has_computed_parameters(loaded)
    with torch.no_grad():
        assert relative_error(loaded(images), network(images)) <= 1e-6


def test_weights_are_loaded_as_they_were_and_as_they_became(form: str, tmp_path: Path) -> None:
    network, images = _network(form), torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        expected = network(images)
    save_weights(network.state_dict(), tmp_path / "computed.safetensors")
    make_permanent(network)
    save_weights(network.state_dict(), tmp_path / "plain.safetensors")
    for name in ("computed", "plain"):
        other = _network(form)
        with torch.no_grad():
            for weights in other.parameters():
                weights.mul_(0.5)
        load_weights(other, tmp_path / f"{name}.safetensors")
        make_permanent(other)
        with torch.no_grad():
            assert relative_error(other(images), expected) <= 1e-6
