"""A pruned network as one file that runs without prunetune."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ...errors import NetworkError, PruneTuneError
from .loading import Artifact, load_artifact
from .probes import TOLERANCE, difference, probe_images
from .stale import SUFFIXES, export_mark

__all__ = ["ExportFormat", "export_artifact"]

ExportFormat = Literal["onnx", "torch-export"]

_INPUT, _OUTPUT = "images", "logits"
_LONGEST_REASON = 300

_Run = Callable[[Tensor], Tensor]


def export_artifact(
    folder: Path,
    form: ExportFormat,
    output: Path | None = None,
    network: nn.Module | None = None,
    *,
    model: str | None = None,
    trust: bool = False,
) -> Path:
    """Write an artifact's network as one file, after checking that it gives the same outputs.

    The file takes normalised images, float32 [N, C, H, W] with any N, and gives logits, float32
    [N, classes]. "torch-export" is a program that ``torch.export.load`` reads; "onnx" needs the
    packages onnx and onnxscript, and is checked with ONNX Runtime where that is installed.

    Args:
        folder: The artifact.
        form: The format.
        output: The file; ``model.pt2`` or ``model.onnx`` beside the artifact's weights when left
            out.
        network: As for `load_artifact`.
        model: As for `load_artifact`.
        trust: As for `load_artifact`.

    Returns:
        The file.

    Raises:
        PruneTuneError: If there is no such format, packages are missing, the file's name does not
            fit, is taken or cannot be written, the artifact is broken, its network cannot be
            exported, or the file's outputs are not its.
    """
    if form not in get_args(ExportFormat):
        raise PruneTuneError(f"There is no format {form!r}; give one of {', '.join(SUFFIXES)}.")
    if form == "onnx" and not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise PruneTuneError("ONNX needs two more packages: pip install onnx onnxscript.")
    path = output or folder / f"model{SUFFIXES[form]}"
    if path.suffix != SUFFIXES[form]:
        raise PruneTuneError(f"--output {path} must end in {SUFFIXES[form]} for {form}.")
    if path.exists():
        raise PruneTuneError(f"{path} is there already; remove it or give another --output.")
    artifact = load_artifact(folder, network, model=model, trust=trust)
    try:
        with _silence():
            content, run = (_onnx if form == "onnx" else _torch_export)(artifact)
    except Exception as broken:
        raise NetworkError(
            f"The network cannot be exported as {form} ({_reason(broken)}); its forward pass must "
            "take one tensor of images, and neither branch nor loop by their number or values."
        ) from broken
    try:
        with _silence():
            error = _largest_error(artifact, run)
    except Exception as broken:
        raise NetworkError(
            f"{path} was not written, because it cannot be run to check it ({_reason(broken)}); "
            + ("pip install onnxruntime, or " if _lacks_runtime(form) else "")
            + "try the other format."
        ) from broken
    if not error <= TOLERANCE:
        raise NetworkError(
            f"{path} was not written: its outputs would differ from the network's by {error:.2g} "
            "of the largest; try the other format."
        )
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as broken:
        partial.unlink(missing_ok=True)
        raise PruneTuneError(f"{path} cannot be written: {broken.strerror or broken}.") from broken
    return path


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep from the terminal what exporters log and print, such as whole graphs."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _torch_export(artifact: Artifact) -> tuple[bytes, _Run]:
    buffer = io.BytesIO()
    torch.export.save(_program(artifact), buffer, extra_files={"prunetune": _mark(artifact)})
    buffer.seek(0)
    network = torch.export.load(buffer).module()
    return buffer.getvalue(), lambda images: network(images)


def _onnx(artifact: Artifact) -> tuple[bytes, _Run]:
    import onnx

    exported = torch.onnx.export(
        _program(artifact), dynamo=True, input_names=[_INPUT], output_names=[_OUTPUT], verbose=False
    )
    assert exported is not None
    model = exported.model_proto
    onnx.helper.set_model_props(model, {"prunetune": _mark(artifact)})
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    return content, _runtime(content)


def _runtime(content: bytes) -> _Run:
    """What runs an ONNX file: ONNX Runtime where there is one, else ONNX's own slow reference."""
    if not _lacks_runtime("onnx"):
        import onnxruntime

        session: Any = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    else:
        import onnx.reference

        session = onnx.reference.ReferenceEvaluator(content)
    return lambda images: torch.from_numpy(session.run(None, {_INPUT: images.numpy()})[0])


def _lacks_runtime(form: str) -> bool:
    """Whether a file can only be checked with ONNX's own reference, which lacks some operators."""
    return form == "onnx" and importlib.util.find_spec("onnxruntime") is None


def _program(artifact: Artifact) -> torch.export.ExportedProgram:
    network = artifact.network
    # On one device it only passes on what it is given.
    inner = network.module if isinstance(network, nn.DataParallel) else network
    batch = torch.export.Dim("batch", min=1)
    # An example of one image would make one the only size of a batch.
    return torch.export.export(inner, (_images(artifact, 2),), dynamic_shapes=({0: batch},))


def _largest_error(artifact: Artifact, run: _Run) -> float:
    """How far a file's outputs are from the network's, as a share of the largest output."""
    with torch.inference_mode():
        pairs = [
            (run(images), artifact.network(images))
            for images in (_images(artifact, count) for count in (1, 3))
        ]
    return max(difference(found, expected) for found, expected in pairs)


def _reason(error: Exception) -> str:
    # Exporters explain themselves over pages, and their first sentence says what went wrong.
    first = re.split(r"(?<=[.!?])\s|\s+For more information", str(error).strip())[0]
    text = " ".join(first.split())[:_LONGEST_REASON].rstrip(".!")
    return f"{type(error).__name__}: {text}"


def _mark(artifact: Artifact) -> str:
    return export_mark(artifact.description["weights_sha256"])


def _images(artifact: Artifact, count: int) -> Tensor:
    channels, height, width = artifact.description["network"]["input_shape"]
    return probe_images((channels, height, width), count)
