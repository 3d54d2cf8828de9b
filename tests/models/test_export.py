"""Exported networks against the networks that they were exported from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from prunetune.errors import PruneTuneError
from prunetune.models import PruningTask, load_artifact, save_artifact, trace_channel_groups
from prunetune.models.export import export_artifact
from prunetune.models.reductions.channels import slim


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, digits_task: PruningTask) -> Path:
    """Every other unit of the digits network."""
    folder = tmp_path_factory.mktemp("artifact") / "half"
    groups = trace_channel_groups(digits_task.network, digits_task.example_input, digits_task.scope)
    kept = {group.name: list(range(0, group.size, 2)) for group in groups}
    network = slim(digits_task.network, groups, [np.array(units) for units in kept.values()])
    save_artifact(
        folder,
        network,
        model="digits-net",
        num_classes=digits_task.num_classes,
        input_shape=digits_task.input_shape,
        scope=digits_task.scope,
        kept=kept,
        provenance={},
        measured={},
    )
    return folder


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
