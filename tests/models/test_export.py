"""Exported networks against the networks that they were exported from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from prunetune.errors import PruneTuneError
from prunetune.models import PruningTask, build_network, load_artifact, trace_channel_groups
from prunetune.models.artifact.exporting import ExportFormat, export_artifact
from prunetune.models.artifact.saving import save_artifact
from prunetune.models.reductions.channels import slim
from torch import nn

from .artifacts import pruning_of


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, digits_task: PruningTask) -> Path:
    """Every other unit of the digits network."""
    folder = tmp_path_factory.mktemp("artifact") / "half"
    _write(folder, digits_task.network, "digits-net", digits_task.input_shape)
    return folder


def _write(folder: Path, dense: nn.Module, model: str, shape: tuple[int, int, int]) -> None:
    groups = trace_channel_groups(dense, torch.zeros(1, *shape), "inner")
    kept = [np.arange(0, group.size, 2) for group in groups]
    pruning = pruning_of(model, dense, groups, kept, "inner")
    save_artifact(folder, slim(dense, groups, kept), dense, pruning, provenance={}, measured={})


def test_a_program_gives_the_same_outputs_for_any_number_of_images(
    artifact: Path, digits_task: PruningTask
) -> None:
    path = export_artifact(artifact, "torch-export")
    assert path == artifact / "model.pt2"
    loaded = torch.export.load(path).module()
    network = load_artifact(artifact).network
    with torch.inference_mode():
        for count in (1, 7):
            images = digits_task.validation.images[:count]
            torch.testing.assert_close(loaded(images), network(images))
    # Nothing of writing it is left behind.
    assert [each.name for each in artifact.glob("*partial*")] == []


def test_onnx_gives_the_same_outputs_in_another_runtime(
    artifact: Path, digits_task: PruningTask, tmp_path: Path
) -> None:
    path = export_artifact(artifact, "onnx", tmp_path / "network.onnx")
    runtime = ReferenceEvaluator(onnx.load(path))
    images = digits_task.validation.images[:5]
    (found,) = runtime.run(None, {"images": images.numpy()})
    network = load_artifact(artifact).network
    with torch.inference_mode():
        expected = network(images)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_mistakes_are_one_sentence_and_write_nothing(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "taken.pt2"
    taken.write_text("mine")
    with pytest.raises(PruneTuneError, match="is there already"):
        export_artifact(artifact, "torch-export", taken)
    assert taken.read_text() == "mine"
    with pytest.raises(PruneTuneError, match=r"must end in \.onnx"):
        export_artifact(artifact, "onnx", tmp_path / "network.pt2")
    with pytest.raises(PruneTuneError, match="no format 'tflite'; give one of onnx, torch-export"):
        export_artifact(artifact, "tflite")  # type: ignore[arg-type]
    with pytest.raises(PruneTuneError, match="cannot be written"):
        export_artifact(artifact, "torch-export", tmp_path / "none" / "network.pt2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PruneTuneError, match="pip install onnx onnxscript"):
        export_artifact(artifact, "onnx", tmp_path / "network.onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["taken.pt2"]


_AWKWARD = """
import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.a = nn.Conv2d(input_shape[0], 8, 3)
        self.b = nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.b(self.a(x).relu()).relu().mean((2, 3)))


class AnyNumber(Plain):
    def forward(self, *xs):
        return super().forward(*xs)


class Guarded(Plain):
    def forward(self, x):
        if torch.isnan(x).any():
            raise ValueError("NaN")
        return super().forward(x)


class Looping(Plain):
    def forward(self, x):
        return torch.cat([super(Looping, self).forward(x[i : i + 1]) for i in range(len(x))])
"""


@pytest.mark.parametrize("name", ["AnyNumber", "Guarded", "Looping"])
@pytest.mark.parametrize("form", ["torch-export", "onnx"])
def test_a_network_is_exported_and_checked_or_the_reason_is_one_sentence(
    tmp_path: Path, name: str, form: ExportFormat
) -> None:
    file = tmp_path / "awkward.py"
    file.write_text(_AWKWARD)
    model = f"{file}:{name}"
    _write(tmp_path, build_network(model, 10, (1, 8, 8)), model, (1, 8, 8))
    try:
        path = export_artifact(tmp_path, form, trust=True)
    except PruneTuneError as error:
        assert "cannot be exported" in str(error) and "\n" not in str(error)
        assert len(str(error)) < 800
        assert not [*tmp_path.glob("*.pt2"), *tmp_path.glob("*.onnx")]
    else:
        assert path.is_file()


def test_a_network_on_one_device_is_exported_without_its_wrapper(tmp_path: Path) -> None:
    file = tmp_path / "parallel.py"
    file.write_text(
        "from torch import nn\n"
        "from prunetune.models import build_network\n"
        "def parallel(num_classes, input_shape):\n"
        "    return nn.DataParallel(build_network('digits-net', num_classes, input_shape))\n"
    )
    model = f"{file}:parallel"
    _write(tmp_path, build_network(model, 10, (1, 8, 8)), model, (1, 8, 8))
    path = export_artifact(tmp_path, "torch-export", trust=True)
    images = torch.rand(3, 1, 8, 8)
    expected = load_artifact(tmp_path, trust=True).network(images)
    torch.testing.assert_close(torch.export.load(path).module()(images), expected)
