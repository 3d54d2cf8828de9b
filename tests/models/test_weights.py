"""Weights files: what is understood, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prunetune.errors import WeightsError
from prunetune.models import build_network, load_weights, read_weights, save_weights
from torch import Tensor

_SHAPE = (1, 8, 8)


def _weights(name: str = "digits-net", classes: int = 10) -> dict[str, Tensor]:
    return build_network(name, classes, _SHAPE).state_dict()


def test_safetensors_round_trip_is_exact(tmp_path: Path) -> None:
    source, target = (build_network("digits-net", 10, _SHAPE) for _ in range(2))
    images = torch.rand(4, *_SHAPE)
    assert not torch.equal(source(images), target(images))
    save_weights(source.state_dict(), tmp_path / "new" / "weights.safetensors")
    load_weights(target, tmp_path / "new" / "weights.safetensors")
    assert torch.equal(source(images), target(images))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("suffix", [".pt", ".pth.tar", ".th", ".ckpt", ".bin", ""])
@pytest.mark.parametrize("entry", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_checkpoints_of_the_usual_kinds(
    tmp_path: Path, suffix: str, entry: str | None, prefix: str
) -> None:
    weights = _weights()
    content: dict[str, object] = {prefix + name: value for name, value in weights.items()}
    if entry is not None:
        content = {entry: content, "epoch": 3}
    path = tmp_path / f"checkpoint{suffix}"
    torch.save(content, path)
    network = build_network("digits-net", 10, _SHAPE)
    load_weights(network, path)
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[name])


def test_batch_counters_may_be_missing(tmp_path: Path) -> None:
    weights = {k: v for k, v in _weights().items() if not k.endswith("num_batches_tracked")}
    save_weights(weights, tmp_path / "weights.safetensors")
    load_weights(build_network("digits-net", 10, _SHAPE), tmp_path / "weights.safetensors")


def test_another_architecture_is_refused_with_names(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(_weights("resnet20"), path)
    network = build_network("digits-net", 10, _SHAPE)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=r"another architecture.*missing \(.*stem\.0\.weight"):
        load_weights(network, path)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_another_depth_and_shape_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(_weights("resnet20"), path)
    with pytest.raises(WeightsError, match=r"missing \(layer1\.3\.conv1\.weight"):
        load_weights(build_network("resnet32", 10, _SHAPE), path)
    with pytest.raises(WeightsError, match=r"conv1\.weight is \(16, 1, 3, 3\) instead of \(16, 3"):
        load_weights(build_network("resnet20", 10, (3, 8, 8)), path)


def test_another_number_of_classes_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(_weights(classes=7), path)
    with pytest.raises(WeightsError, match="for 7 classes but the data has 10"):
        load_weights(build_network("digits-net", 10, _SHAPE), path)


class _Payload:
    """What a pickle may hold, and weights-only loading must not build."""


def test_unreadable_files_are_one_sentence(tmp_path: Path) -> None:
    files = {
        "missing.pt": None,
        "text.txt": b"hello",
        "broken.safetensors": b"hello, this is not a header",
        "broken.pt": b"neither is this",
    }
    for name, content in files.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    torch.save({"network": _Payload()}, tmp_path / "pickle.pt")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    for name, message in {
        "missing.pt": "does not exist",
        "text.txt": "begins neither as safetensors nor as what torch.save writes",
        "broken.safetensors": "not a readable safetensors file",
        "broken.pt": "not a readable PyTorch file|holds more than tensors",
        "pickle.pt": "holds more than tensors",
        "list.pth": "holds a list",
        "empty.pt": "holds no tensors",
    }.items():
        with pytest.raises(WeightsError, match=message) as caught:
            read_weights(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".bin", ".pth"])
def test_safetensors_are_known_by_their_content(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    save_weights(_weights(), path)
    load_weights(build_network("digits-net", 10, _SHAPE), path)


def test_files_of_the_first_torch_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.th"
    torch.save({"state_dict": _weights()}, path, _use_new_zipfile_serialization=False)
    load_weights(build_network("digits-net", 10, _SHAPE), path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page"),
        (b"\xef\xbb\xbf\n  <HTML></HTML>", "web page"),
        (b'{"weight_map": {}}', "is JSON"),
        (b"\x1f\x8b\x08 and so on", "gzip archive"),
        (b"", "is empty"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{", "begins neither"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_stands_in_place_of_weights_is_named(
    tmp_path: Path, content: bytes, said: str, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=said) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_modules_that_ask_for_their_version_load(tmp_path: Path) -> None:
    network = build_network("torchvision:mnasnet0_5", 10, (3, 32, 32))
    save_weights(network.state_dict(), tmp_path / "weights.safetensors")
    other = build_network("torchvision:mnasnet0_5", 10, (3, 32, 32))
    load_weights(other, tmp_path / "weights.safetensors")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(other(images), network(images))


def test_tied_weights_are_written_by_each_of_their_names(tmp_path: Path) -> None:
    def tied() -> torch.nn.Module:
        network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
        network[1].weight = network[0].weight
        return network

    saved, loaded = tied(), tied()
    save_weights(saved.state_dict(), tmp_path / "weights.safetensors")
    load_weights(loaded, tmp_path / "weights.safetensors")
    assert torch.equal(loaded(torch.eye(4)), saved(torch.eye(4)))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("stem.0.weight", float("nan"), "NaN or infinite"),
        ("stem.1.running_mean", float("inf"), "NaN or infinite"),
        ("stem.1.running_var", -1.0, "negative variance"),
    ],
)
def test_values_of_no_trained_network_are_refused(
    tmp_path: Path, name: str, value: float, said: str
) -> None:
    weights = _weights()
    weights[name].view(-1)[0] = value
    save_weights(weights, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=said):
        load_weights(build_network("digits-net", 10, _SHAPE), tmp_path / "weights.safetensors")


@pytest.mark.parametrize("kind", [torch.int64, torch.complex64])
def test_values_of_another_kind_are_refused_and_other_precisions_are_not(
    tmp_path: Path, kind: torch.dtype
) -> None:
    weights = _weights()
    path = tmp_path / "weights.pt"
    torch.save({**weights, "stem.0.weight": weights["stem.0.weight"].to(kind)}, path)
    network = build_network("digits-net", 10, _SHAPE)
    with pytest.raises(WeightsError, match=r"stem\.0\.weight as (int64|complex64)"):
        load_weights(network, path)
    torch.save({name: each.half() for name, each in weights.items() if each.ndim}, path)
    load_weights(network, path)
    assert network.state_dict()["stem.0.weight"].dtype == torch.float32
