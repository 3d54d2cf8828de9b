"""Artifacts: reload to the same outputs without pickle; they are written whole, or not at all."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from prunetune._references import resolve
from prunetune.errors import NetworkError, PruneTuneError
from prunetune.models import (
    build_network,
    load_artifact,
    slim,
    trace_channel_groups,
    verify_artifact,
)
from prunetune.models.artifact.exporting import export_artifact
from prunetune.models.artifact.saving import Pruning, save_artifact
from prunetune.models.data import DataSpec, load_data
from prunetune.models.layers import adapter_of
from prunetune.models.reductions.activations import find_activations
from prunetune.models.reductions.depth import DepthReduction
from prunetune.models.space import SearchSpace
from prunetune.models.training import accuracy
from torch import nn

from .artifacts import SHAPE, awkward_file, change, pruning_of, users_file, write
from .networks import half_kept, random_kept, randomise


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
    saved = write(tmp_path / "a", model, scope, shape)

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


@pytest.mark.parametrize(
    "mode", [torch.inference_mode, torch.no_grad, partial(torch.autocast, "cpu")]
)
def test_a_network_reloads_whatever_a_session_computes_with(
    tmp_path: Path, mode: Callable[[], AbstractContextManager[None]]
) -> None:
    folder = tmp_path / "a"
    write(folder)
    saved = load_artifact(folder).network
    images = torch.randn(5, *SHAPE)
    with mode():
        artifact = load_artifact(folder)
        assert torch.equal(artifact.network(images), saved(images))
    assert all(each.requires_grad for each in artifact.network.parameters())


def test_reading_leaves_random_numbers_alone(tmp_path: Path) -> None:
    write(tmp_path, f"{users_file(tmp_path)}:small")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_artifact(tmp_path, trust=True)
    assert torch.equal(torch.rand(3), expected)


def _halved(file: Path, name: str) -> tuple[nn.Module, nn.Module, Pruning]:
    """Every group of one of the awkward networks at half width."""
    network = randomise(build_network(f"{file}:{name}", 10, SHAPE))
    nn.init.normal_(network.get_submodule("8" if name == "zero_at_first" else "head").weight)
    groups = trace_channel_groups(network, torch.rand(1, *SHAPE), "all")
    kept = half_kept(groups)
    pruning = pruning_of(f"{file}:{name}", network, groups, kept)
    return slim(network, groups, kept), network, pruning


@pytest.mark.parametrize("name", ["zero_at_first", "LateBranch"])
def test_what_was_kept_is_read_and_not_traced(tmp_path: Path, name: str) -> None:
    saved, dense, pruning = _halved(awkward_file(tmp_path), name)
    save_artifact(tmp_path / "a", saved, dense, pruning, provenance={}, measured={})
    images = torch.randn(4, *SHAPE)
    loaded = load_artifact(tmp_path / "a", trust=True).network
    with torch.no_grad():
        assert torch.equal(loaded(images), saved(images))


@pytest.mark.parametrize(
    "name", [pytest.param("efficientnet_b0", marks=pytest.mark.slow), "mnasnet0_5"]
)
def test_networks_of_torchvision_are_read_whatever_their_first_weights(
    tmp_path: Path, name: str
) -> None:
    saved = write(tmp_path, f"torchvision:{name}", "all", (3, 64, 64))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load_artifact(tmp_path).network(images), saved(images))
    verify_artifact(tmp_path)


def test_a_network_of_timm_is_read_by_its_name(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    saved = write(tmp_path, "timm:resnet10t", "all", (3, 32, 32))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_artifact(tmp_path).network(images), saved(images))
    change(tmp_path, lambda d: d["network"].update(model="timm:hf-hub:someone/resnet10t"))
    with pytest.raises(PruneTuneError, match="Unknown timm model"):
        load_artifact(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Elsewhere", "parameters and buffers|other outputs"),
        ("LateBranch", "other outputs each time"),
        ("Counting", "parameters and buffers|other outputs"),
    ],
)
def test_what_cannot_be_read_back_is_an_error_and_replaces_nothing(
    tmp_path: Path, name: str, said: str
) -> None:
    file, folder = awkward_file(tmp_path), tmp_path / "a"
    earlier, dense, pruning = _halved(file, "LateBranch")
    save_artifact(folder, earlier, dense, pruning, provenance={}, measured={})
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    saved, dense, pruning = _halved(file, name)
    if name == "Counting":
        resolve(f"{file}:Counting", "model").forward.__globals__["calls"] = 3
    elif name == "LateBranch":
        saved.register_forward_hook(lambda module, inputs, outputs: outputs + torch.rand(1))
    with pytest.raises(NetworkError, match=said) as caught:
        save_artifact(folder, saved, dense, pruning, provenance={}, measured={})
    assert "\n" not in str(caught.value)
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before


def test_a_network_that_diverged_is_not_written(tmp_path: Path) -> None:
    network = write(tmp_path / "a")
    pruning = _pruning_of_digits()
    with torch.no_grad():
        network.get_parameter("linear.bias").fill_(torch.nan)
    with pytest.raises(NetworkError, match="NaN or infinite"):
        _save(tmp_path / "b", network, pruning)
    assert not (tmp_path / "b").exists()


def test_real_images_are_compared_too(tmp_path: Path) -> None:
    network = write(tmp_path)

    class OnlyOnBright(nn.Module):
        """Differs from what is written where images are bright."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Map images to logits."""
            return network(x) + (x.mean() > 10)

    found = OnlyOnBright()
    found.state_dict = network.state_dict  # type: ignore[method-assign]
    images = torch.full((1, *SHAPE), 20.0)
    pruning = _pruning_of_digits()
    _save(tmp_path / "a", found, pruning)
    with pytest.raises(NetworkError, match="gives other outputs than the network"):
        _save(tmp_path / "b", found, pruning, images=images)


def _save(
    folder: Path, network: nn.Module, pruning: Pruning, images: torch.Tensor | None = None
) -> tuple[str, ...]:
    dense = build_network("digits-net", 10, SHAPE)
    return save_artifact(folder, network, dense, pruning, provenance={}, measured={}, images=images)


def _pruning_of_digits(seed: int = 0) -> Pruning:
    """Of what `write` writes by default."""
    network = randomise(build_network("digits-net", 10, SHAPE), seed)
    groups = trace_channel_groups(network, torch.rand(1, *SHAPE), "all")
    return pruning_of("digits-net", network, groups, random_kept(groups, seed))


def test_decisions_and_kept_channels_are_said(tmp_path: Path) -> None:
    network = write(tmp_path)
    said = load_artifact(tmp_path).description
    dense = build_network("digits-net", 10, SHAPE)
    assert {d["kind"] for d in said["decisions"].values()} == {"channels"}
    for name, decision in said["decisions"].items():
        assert len(said["kept"][name]) == said["widths"][name] == decision["value"]
        assert dense.get_submodule(name).weight.shape[0] == decision["size"]
    for name, layer in said["layers"].items():
        weight = network.get_submodule(name)
        for channels, kept in zip(_sides(weight), (layer["outputs"], layer["inputs"]), strict=True):
            assert kept is None or len(kept) == channels


def _sides(layer: nn.Module) -> tuple[int, int]:
    adapter = adapter_of(layer)
    assert adapter is not None
    outputs, inputs = adapter.channels(layer)
    return outputs, inputs


def test_layers_that_were_merged_are_read_back(tmp_path: Path) -> None:
    file = users_file(tmp_path)
    dense = randomise(build_network(f"{file}:small", 10, SHAPE))
    reduction = DepthReduction(find_activations(dense, torch.rand(1, *SHAPE)))
    values = tuple(0 for _ in reduction.decisions)
    saved = reduction.apply(dense, values)
    pruning = Pruning(
        model=f"{file}:small",
        num_classes=10,
        input_shape=SHAPE,
        scope="all",
        space=SearchSpace(reduction.decisions),
        candidate=values,
        kept={},
        layers={},
    )
    save_artifact(tmp_path / "a", saved, dense, pruning, provenance={}, measured={})
    artifact = load_artifact(tmp_path / "a", trust=True)
    images = torch.randn(4, *SHAPE)
    with torch.no_grad():
        assert torch.equal(artifact.network(images), saved(images))
    assert {d["kind"] for d in artifact.description["decisions"].values()} == {"activation"}
    merged = artifact.description["replaced"]
    assert sorted(form["kind"] for form in merged.values()).count("Identity") >= 2
    layers = sum(type(each) is nn.Conv2d for each in artifact.network.modules())
    assert layers == sum(type(each) is nn.Conv2d for each in saved.modules())
    edits: list[Callable[[dict[str, Any]], Any]] = [
        lambda d: d["replaced"].update(nowhere={"kind": "Identity"}),
        lambda d: d["replaced"].update({"0": {"kind": "Linear", "outputs": 2**24, "inputs": 9}}),
        lambda d: d["replaced"].update({"0": {"kind": "Conv2d", "outputs": 3, "groups": 2}}),
        lambda d: d["replaced"].update({"0": {"kind": "LSTM"}}),
    ]
    for number, edit in enumerate(edits):
        shutil.copytree(tmp_path / "a", tmp_path / str(number))
        change(tmp_path / str(number), edit)
        with pytest.raises(PruneTuneError):
            load_artifact(tmp_path / str(number), trust=True)


def test_verification_reports_what_was_counted(tmp_path: Path) -> None:
    saved = write(tmp_path, budgets={"flops": 1.0, "latency": 0.1}, validation=0.9)
    found = verify_artifact(tmp_path)
    dense = build_network("digits-net", 10, SHAPE)
    params = sum(each.numel() for each in saved.parameters())
    assert found["params"] == params
    assert found["params_fraction"] == params / sum(each.numel() for each in dense.parameters())
    assert 0 < found["flops_fraction"] <= 1
    assert found["measured"]["validation"] == 0.9
    assert found["test_accuracy"] is None


def test_accuracy_is_measured_anew_and_compared(tmp_path: Path) -> None:
    network = write(tmp_path)
    data = load_data(DataSpec())
    right = accuracy(network, data.labelled(data.test))
    change(tmp_path, lambda d: d["measured"].update(test_after=right))
    assert verify_artifact(tmp_path)["test_accuracy"] is None
    assert verify_artifact(tmp_path, data="digits")["test_accuracy"] == right
    change(tmp_path, lambda d: d["provenance"].update(data={"name": "digits"}))
    assert verify_artifact(tmp_path)["test_accuracy"] == right
    change(tmp_path, lambda d: d["measured"].update(test_after=right + 0.1))
    with pytest.raises(PruneTuneError, match="claims a test accuracy of"):
        verify_artifact(tmp_path)


def test_a_folder_that_is_no_artifact_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(PruneTuneError, match="is not an artifact: it has no"):
            load_artifact(folder)
    (tmp_path / "pruning.json").write_text("[]")
    with pytest.raises(PruneTuneError, match="format"):
        load_artifact(tmp_path)


def _as_first_format(content: dict[str, Any]) -> None:
    """What the first version wrote."""
    for key in ("decisions", "layers", "replaced", "outputs", "sha256"):
        content.pop(key)
    content["format"] = 1


def test_artifacts_of_format_1_are_read(tmp_path: Path) -> None:
    saved = write(tmp_path)
    change(tmp_path, _as_first_format, sign=False)
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        assert torch.equal(load_artifact(tmp_path).network(images), saved(images))
    verify_artifact(tmp_path)
    change(tmp_path, lambda d: d["kept"].pop("stem.0"), sign=False)
    change(tmp_path, lambda d: d["widths"].pop("stem.0"), sign=False)
    with pytest.raises(NetworkError, match="are not found again"):
        load_artifact(tmp_path)


def test_saving_again_replaces_and_leaves_the_network_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, seed=1)
    second = write(tmp_path, seed=2)
    assert load_artifact(tmp_path).widths == _pruning_of_digits(2).candidate
    second.train()
    before = copy.deepcopy(second.state_dict())
    _save(tmp_path / "b", second, _pruning_of_digits(2))
    assert second.training
    assert all(torch.equal(value, before[name]) for name, value in second.state_dict().items())


def test_exports_of_other_weights_are_removed(tmp_path: Path) -> None:
    write(tmp_path, seed=1)
    mine = export_artifact(tmp_path, "torch-export", tmp_path / "named.pt2")
    others = [tmp_path / "model.onnx", tmp_path / "theirs.pt2", tmp_path / "notes.txt"]
    for path in others:
        path.write_text("something")
    network = load_artifact(tmp_path).network
    pruning = _pruning_of_digits(1)
    assert _save(tmp_path, network, pruning) == ("model.onnx",)
    assert mine.is_file()
    with torch.no_grad():
        network.get_parameter("linear.bias").add_(1.0)
    assert _save(tmp_path, network, pruning) == ("named.pt2",)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "model.safetensors",
        "notes.txt",
        "pruning.json",
        "theirs.pt2",
    ]


def test_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PruneTuneError, match="cannot be written") as caught:
        write(tmp_path / "file" / "a")
    assert "\n" not in str(caught.value)
