"""Artifacts: reload to the same outputs without pickle, and notice every change."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from prunetune.errors import PruneTuneError
from prunetune.models import (
    build_network,
    load_artifact,
    save_artifact,
    slim,
    trace_channel_groups,
    verify_artifact,
)
from torch import nn

from .networks import random_kept, randomise, widths_of

_SHAPE = (1, 8, 8)


def _write(
    folder: Path,
    model: str = "digits-net",
    scope: Any = "all",
    shape: tuple[int, int, int] = _SHAPE,
    seed: int = 0,
    budgets: dict[str, float] | None = None,
) -> nn.Module:
    network = randomise(build_network(model, 10, shape), seed)
    groups = trace_channel_groups(network, torch.rand(1, *shape), scope)
    kept = random_kept(groups, seed)
    slimmed = slim(network, groups, kept)
    save_artifact(
        folder,
        slimmed,
        model=model,
        num_classes=10,
        input_shape=shape,
        scope=scope,
        kept={g.name: units.tolist() for g, units in zip(groups, kept, strict=True)},
        provenance={"budgets": budgets or {}},
        measured={"test_accuracy": 0.9},
    )
    return slimmed


@pytest.mark.parametrize("scope", ["inner", "all"])
@pytest.mark.parametrize(
    ("model", "shape"),
    [("digits-net", (1, 8, 8)), ("resnet20", (3, 16, 16)), ("mobilenetv2", (3, 16, 16))],
)
def test_reloaded_network_gives_the_same_outputs_without_pickle(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    shape: tuple[int, int, int],
    scope: str,
) -> None:
    saved = _write(tmp_path / "a", model, scope, shape)

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("pickle was used")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (torch, "load"), (torch, "save")):
        monkeypatch.setattr(owner, name, forbidden)
    monkeypatch.setattr(pickle, "Unpickler", forbidden)
    artifact = load_artifact(tmp_path / "a")
    images = torch.randn(5, *shape)
    with torch.no_grad():
        assert torch.equal(artifact.network(images), saved(images))
    assert not artifact.network.training
    assert sorted(each.name for each in (tmp_path / "a").iterdir()) == [
        "model.safetensors",
        "pruning.json",
    ]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_network_reloads_where_gradients_are_off(
    tmp_path: Path, mode: Callable[[], AbstractContextManager[None]]
) -> None:
    saved = _write(tmp_path)
    images = torch.randn(5, *_SHAPE)
    with mode():
        artifact = load_artifact(tmp_path)
        assert torch.equal(artifact.network(images), saved(images))
    assert all(each.requires_grad for each in artifact.network.parameters())


def test_verification_reports_what_was_counted(tmp_path: Path) -> None:
    saved = _write(tmp_path, budgets={"flops": 1.0, "latency": 0.1})
    found = verify_artifact(tmp_path)
    dense = build_network("digits-net", 10, _SHAPE)
    params = sum(each.numel() for each in saved.parameters())
    assert found["params"] == params
    assert found["params_fraction"] == params / sum(each.numel() for each in dense.parameters())
    assert 0 < found["flops_fraction"] <= 1
    assert found["measured"]["test_accuracy"] == 0.9


def _change(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "pruning.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


_CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a unit less": lambda d: d["kept"]["stem.0"].pop(),
    "a unit twice": lambda d: d["kept"]["stem.0"].append(d["kept"]["stem.0"][-1]),
    "a unit that is not there": lambda d: d["kept"].update({"stem.0": [999]}),
    "a negative unit": lambda d: d["kept"].update({"stem.0": [-1]}),
    "no unit": lambda d: d["kept"].update({"stem.0": []}),
    "units that are no numbers": lambda d: d["kept"].update({"stem.0": ["a"]}),
    "another width": lambda d: d["widths"].update({"stem.0": 5 + d["widths"]["stem.0"]}),
    "no such group": lambda d: d["kept"].pop("stem.0"),
    "no widths": lambda d: d.pop("widths"),
    "fewer FLOPs": lambda d: d["measured"].update(flops=d["measured"]["flops"] - 2),
    "more parameters": lambda d: d["measured"].update(params=d["measured"]["params"] + 1),
    "nothing measured": lambda d: d.pop("measured"),
    "no provenance": lambda d: d.pop("provenance"),
    "a budget that is no number": lambda d: d["provenance"].update(budgets={"flops": "half"}),
    "a budget that is not met": lambda d: d["provenance"].update(budgets={"params": 0.001}),
    "another network": lambda d: d["network"].update(model="resnet20"),
    "an unknown network": lambda d: d["network"].update(model="digitsnet"),
    "no network": lambda d: d.pop("network"),
    "another input": lambda d: d["network"].update(input_shape=[3, 8, 8]),
    "another format": lambda d: d.update(format=99),
}


@pytest.mark.parametrize("change", sorted(_CHANGES))
def test_a_changed_description_is_noticed_in_one_sentence(tmp_path: Path, change: str) -> None:
    _write(tmp_path)
    verify_artifact(tmp_path)
    _change(tmp_path, _CHANGES[change])
    with pytest.raises(PruneTuneError) as caught:
        verify_artifact(tmp_path)
    assert "\n" not in str(caught.value)


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    _write(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    weights["linear.bias"][0] += 1e-3
    safetensors.torch.save_file(weights, path)
    with pytest.raises(PruneTuneError, match="weights"):
        verify_artifact(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PruneTuneError, match="safetensors"):
        load_artifact(tmp_path)
    path.unlink()
    with pytest.raises(PruneTuneError, match="does not exist"):
        verify_artifact(tmp_path)


def test_a_folder_that_is_no_artifact_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(PruneTuneError, match="is not an artifact: it has no"):
            load_artifact(folder)
    (tmp_path / "pruning.json").write_text("{")
    with pytest.raises(PruneTuneError, match="not valid JSON") as caught:
        load_artifact(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "pruning.json").write_text("[]")
    with pytest.raises(PruneTuneError, match="format"):
        load_artifact(tmp_path)


def test_users_own_network_reloads(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "def small(num_classes, input_shape):\n"
        "    return nn.Sequential(\n"
        "        nn.Conv2d(input_shape[0], 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),\n"
        "        nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "        nn.Linear(8, num_classes))\n"
    )
    saved = _write(tmp_path / "a", f"{file}:small")
    images = torch.randn(3, *_SHAPE)
    with torch.no_grad():
        assert torch.equal(load_artifact(tmp_path / "a").network(images), saved(images))
    verify_artifact(tmp_path / "a")
    file.unlink()
    with pytest.raises(PruneTuneError):
        load_artifact(tmp_path / "a")


def test_saving_again_replaces_and_leaves_the_network_as_it_is(tmp_path: Path) -> None:
    _write(tmp_path, seed=1)
    second = _write(tmp_path, seed=2)
    assert load_artifact(tmp_path).widths == widths_of(
        random_kept(load_artifact(tmp_path).groups, 2)
    )
    second.train()
    before = {name: value.clone() for name, value in second.state_dict().items()}
    save_artifact(
        tmp_path / "b",
        second,
        model="digits-net",
        num_classes=10,
        input_shape=_SHAPE,
        scope="all",
        kept={},
        provenance={},
        measured={},
    )
    assert second.training
    assert all(torch.equal(value, before[name]) for name, value in second.state_dict().items())


def test_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PruneTuneError, match="cannot be written") as caught:
        _write(tmp_path / "file" / "a")
    assert "\n" not in str(caught.value)
