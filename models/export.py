"""A pruned network as one file that runs without prunetune."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..errors import NetworkError, PruneTuneError
from .artifact import Artifact, load_artifact

__all__ = ["ExportFormat", "export_artifact"]

ExportFormat = Literal["onnx", "torch-export"]

_SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}
_INPUT, _OUTPUT = "images", "logits"
# Sums in another order; a network that was exported wrongly is off by far more.
_TOLERANCE = 1e-3

_Run = Callable[[Tensor], Tensor]


def export_artifact(folder: Path, form: ExportFormat, output: Path | None = None) -> Path:
    """Write an artifact's network as one file, after checking that it gives the same outputs.

    The file takes normalised images, float32 [N, C, H, W] with any N, and gives logits, float32
    [N, classes]. "torch-export" is a program that ``torch.export.load`` reads; "onnx" needs the
    packages onnx and onnxscript.

    Args:
        folder: The artifact.
        form: The format.
        output: The file; ``model.pt2`` or ``model.onnx`` beside the artifact's weights when left
            out.

    Returns:
        The file.

    Raises:
        PruneTuneError: If there is no such format, packages are missing, the file's name does not
            fit, is taken or cannot be written, the artifact is broken, or the file's outputs are
            not its.
    """
    if form not in get_args(ExportFormat):
        raise PruneTuneError(f"There is no format {form!r}; give one of {', '.join(_SUFFIXES)}.")
    if form == "onnx" and not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise PruneTuneError("ONNX needs two more packages: pip install onnx onnxscript.")
    path = output or folder / f"model{_SUFFIXES[form]}"
    if path.suffix != _SUFFIXES[form]:
        raise PruneTuneError(f"--output {path} must end in {_SUFFIXES[form]} for {form}.")
    if path.exists():
        raise PruneTuneError(f"{path} is there already; remove it or give another --output.")
    artifact = load_artifact(folder)
    content, run = (_onnx if form == "onnx" else _torch_export)(_program(artifact))
    _check(artifact, run, path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise PruneTuneError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def _torch_export(program: torch.export.ExportedProgram) -> tuple[bytes, _Run]:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    network = torch.export.load(buffer).module()
    return buffer.getvalue(), lambda images: network(images)


def _onnx(program: torch.export.ExportedProgram) -> tuple[bytes, _Run]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    exported = torch.onnx.export(
        program, dynamo=True, input_names=[_INPUT], output_names=[_OUTPUT], verbose=False
    )
    assert exported is not None
    model = exported.model_proto
    onnx.checker.check_model(model)
    evaluator: Any = ReferenceEvaluator(model)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(evaluator.run(None, {_INPUT: images.numpy()})[0])

    return model.SerializeToString(), run


def _program(artifact: Artifact) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    # An example of one image would make one the only size of a batch.
    return torch.export.export(
        artifact.network, (_images(artifact, 2),), dynamic_shapes=({0: batch},)
    )


def _check(artifact: Artifact, run: _Run, path: Path) -> None:
    with torch.inference_mode():
        for count in (1, 3):
            images = _images(artifact, count)
            expected, found = artifact.network(images), run(images)
            error = float((found - expected).abs().max())
            if not error <= _TOLERANCE * max(1.0, float(expected.abs().max())):
                raise NetworkError(
                    f"{path} was not written: its outputs would differ from the network's by up to "
                    f"{error:.2g}; try the other format."
                )


def _images(artifact: Artifact, count: int) -> Tensor:
    shape = artifact.description["network"]["input_shape"]
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
