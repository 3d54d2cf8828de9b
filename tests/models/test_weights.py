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


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
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
        "text.txt": "must end with",
        "broken.safetensors": "not a readable safetensors file",
        "broken.pt": "not a readable PyTorch file|holds more than tensors",
        "pickle.pt": "holds more than tensors",
        "list.pth": "holds a list",
        "empty.pt": "holds no tensors",
    }.items():
        with pytest.raises(WeightsError, match=message) as caught:
            read_weights(tmp_path / name)
        assert "\n" not in str(caught.value)
