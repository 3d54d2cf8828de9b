"""Networks that know a layer in several ways: repaired, trained, written and read as one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from prunetune.models import CandidateBuilder, PruningTask, gather_statistics
from prunetune.models.artifact import load_artifact, verify_artifact
from torch import nn

from . import awkward_networks as awkward
from .artifacts import write
from .networks import randomise

_NAMES = (
    "PlainListNet",
    "BoundMethodNet",
    "TwoNamesNet",
    "TiedNet",
    "ImageBesideNet",
    "TwoWaysNet",
    "squeeze_excitation",
)


@pytest.mark.parametrize("name", _NAMES)
def test_an_artifact_of_an_awkward_network_reloads_to_the_same_outputs(
    tmp_path: Path, name: str
) -> None:
    written = write(tmp_path, f"{awkward.__file__}:{name}", "inner")
    read = load_artifact(tmp_path, trust=True).network
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(read(images), written(images))
    assert verify_artifact(tmp_path, trust=True)["flops_fraction"] <= 1.0
    assert read.state_dict().keys() == written.state_dict().keys()


@pytest.mark.parametrize("name", ["PlainListNet", "BoundMethodNet", "TwoNamesNet", "TiedNet"])
def test_repaired_candidates_run_the_layers_that_they_are_made_of(
    digits_task: PruningTask, name: str
) -> None:
    torch.manual_seed(0)
    network = randomise(getattr(awkward, name)(10, (1, 8, 8)))
    task = dataclasses.replace(digits_task, network=network, digest=f"awkward {name}")
    statistics = gather_statistics(task, "l2", 0)
    builder = CandidateBuilder(task, statistics)
    widths = tuple(max(1, size // 2) for size in statistics.groups.sizes)
    for repair in ("none", "quick", "light", "full"):
        built = builder.build(widths, repair)
        params = sum(each.numel() for each in built.parameters())
        assert params == statistics.groups.structure.params(widths)
        layers = {layer for layer in built.modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
        ran: set[nn.Module] = set()
        handles = [
            layer.register_forward_hook(lambda layer, inputs, output: ran.add(layer))  # noqa: B023
            for layer in {*layers, *network.modules()}
        ]
        with torch.no_grad():
            built(task.calibration[:2])
        for handle in handles:
            handle.remove()
        assert layers <= ran and not ran & set(network.modules())
