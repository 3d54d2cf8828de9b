"""Writing an artifact, reading it back, and only then putting it in its place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..._live import is_live
from ..._references import imported_anew
from ...errors import NetworkError, PluginError, PruneTuneError, WeightsError
from ..calls import count_flops
from ..reductions.channels import KeptChannels
from ..space import Candidate, SearchSpace
from ..weights import save_weights
from ..zoo.build import runs_own_code
from .dense import Reader
from .description import FORMAT
from .files import DESCRIPTION, WEIGHTS, content_digest, file_digest, written
from .forms import replaced_layers
from .loading import read_artifact
from .probes import TOLERANCE, difference, numbers, probe_images, run
from .stale import stale_exports

__all__ = ["Pruning", "count_params", "save_artifact"]

_PARTIAL = ".partial-"


@dataclass(frozen=True)
class Pruning:
    """What was done to a dense network.

    Attributes:
        model: How the dense network is built: zoo name, ``torchvision:NAME``, ``timm:NAME``, the
            user's own ``file.py:function``, or ``live:NAME@DIGEST``.
        num_classes: Outputs of the network.
        input_shape: (channels, height, width) of an image.
        scope: Channel groups that were decided, ``inner`` or ``all``.
        space: The decisions.
        candidate: The value of each.
        kept: Units that were kept, ascending, by channel group.
        layers: Channels that were kept, by layer.
    """

    model: str
    num_classes: int
    input_shape: tuple[int, int, int]
    scope: str
    space: SearchSpace
    candidate: Candidate
    kept: Mapping[str, Sequence[int]]
    layers: KeptChannels


def save_artifact(
    folder: Path,
    network: nn.Module,
    dense: nn.Module,
    pruning: Pruning,
    *,
    provenance: Mapping[str, Any],
    measured: Mapping[str, Any],
    images: Tensor | None = None,
) -> tuple[str, ...]:
    """Write a pruned network, so that what is in ``folder`` is the earlier one or this one.

    What was written is read back, as a new process would, and its outputs are compared with those
    of ``network``, before it takes the place of an earlier artifact. Exports of other weights that
    lie in the folder are removed.

    Args:
        folder: Where to; made when missing.
        network: The slim network, in any mode, on any device.
        dense: The dense network, which is not changed.
        pruning: What was kept of it.
        provenance: Where the network comes from; JSON-serialisable.
        measured: Numbers measured on it; JSON-serialisable. ``flops`` and ``params`` are added.
        images: Normalised images that outputs are compared on, too, float32 [n, C, H, W].

    Returns:
        Names of the exports that were removed.

    Raises:
        WeightsError: If the folder cannot be written.
        NetworkError: If what was written cannot be read or gives other outputs.
    """
    probes = probe_images(pruning.input_shape)
    outputs = run(network, probes, pruning.num_classes)
    if difference(run(network, probes, pruning.num_classes), outputs) > TOLERANCE:
        raise NetworkError(
            f"{folder} is not written: the network gives other outputs each time it is run on the "
            "same images; take what is random out of its evaluation."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder))
    except OSError as error:
        raise WeightsError(f"The folder {folder} cannot be written: {error}.") from error
    try:
        save_weights(network.state_dict(), partial / WEIGHTS)
        content = _content(
            pruning, network, dense, outputs, provenance, measured, partial / WEIGHTS
        )
        (partial / DESCRIPTION).write_text(written(content), encoding="utf-8")
        seen = probes if images is None else torch.cat([probes, images])
        _check(folder, partial, network, pruning, seen)
        stale = stale_exports(folder, content["weights_sha256"])
        for name in stale:
            (folder / name).unlink()
        # Never the weights of one network beside the description of another.
        (folder / DESCRIPTION).unlink(missing_ok=True)
        os.replace(partial / WEIGHTS, folder / WEIGHTS)
        os.replace(partial / DESCRIPTION, folder / DESCRIPTION)
        return stale
    except OSError as error:
        raise WeightsError(f"The folder {folder} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def count_params(network: nn.Module) -> int:
    """Parameters of a network; tied ones count once."""
    return sum(parameter.numel() for parameter in network.parameters())


def _content(
    pruning: Pruning,
    network: nn.Module,
    dense: nn.Module,
    outputs: Tensor,
    provenance: Mapping[str, Any],
    measured: Mapping[str, Any],
    weights: Path,
) -> dict[str, Any]:
    example = torch.zeros(1, *pruning.input_shape)
    content: dict[str, Any] = {
        "format": FORMAT,
        "network": {
            "model": pruning.model,
            "num_classes": pruning.num_classes,
            "input_shape": list(pruning.input_shape),
            "groups": pruning.scope,
        },
        "decisions": {
            each.name: {"kind": each.kind, "size": each.size, "value": int(value)}
            for each, value in zip(pruning.space.decisions, pruning.candidate, strict=True)
        },
        "widths": {name: len(units) for name, units in pruning.kept.items()},
        "kept": {name: [int(unit) for unit in units] for name, units in pruning.kept.items()},
        "layers": {
            name: {"outputs": _plain(outputs_kept), "inputs": _plain(inputs_kept)}
            for name, (outputs_kept, inputs_kept) in pruning.layers.items()
        },
        "replaced": {
            name: form.model_dump()
            for name, form in replaced_layers(dense, pruning.layers, network).items()
        },
        "provenance": dict(provenance),
        "measured": {
            **measured,
            "flops": count_flops(network, example),
            "params": count_params(network),
        },
        "outputs": numbers(outputs),
        "weights_sha256": file_digest(weights),
    }
    return {**content, "sha256": content_digest(content)}


def _plain(channels: NDArray[Any] | None) -> list[int] | None:
    return None if channels is None else [int(channel) for channel in channels]


def _check(
    folder: Path, partial: Path, network: nn.Module, pruning: Pruning, images: Tensor
) -> None:
    """Read back what was written and compare it with the network that was measured."""
    try:
        found = _read_back(partial, pruning)
        error = difference(
            run(found, images, pruning.num_classes), run(network, images, pruning.num_classes)
        )
    except PruneTuneError as broken:
        raise NetworkError(
            f"{folder} is not written, because it could not be read again. {broken}"
        ) from broken
    if not error <= TOLERANCE:
        raise NetworkError(
            f"{folder} is not written, because what is read again gives other outputs than the "
            f"network that was measured (they differ by {error:.2g} of the largest); keep all that "
            "decides its outputs in parameters and buffers of its modules."
        )


def _read_back(partial: Path, pruning: Pruning) -> nn.Module:
    reader = Reader(trust=True)
    if runs_own_code(pruning.model) and not is_live(pruning.model):
        try:
            with imported_anew():
                return read_artifact(partial, reader)[0].network
        except PluginError:
            # Some modules can be imported only once in a process.
            pass
    return read_artifact(partial, reader)[0].network
