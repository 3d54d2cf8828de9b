"""Reading an artifact: data until its reader says otherwise, and compared with what it claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import NetworkError
from .dense import Reader
from .description import Claims, Description, check_bounds, read_description
from .files import read_content
from .first_format import traced_channels
from .forms import with_replaced
from .probes import TOLERANCE, difference, probe_images, run
from .rebuilding import as_kept, rebuild, slimmed

__all__ = ["Artifact", "load_artifact", "read_artifact"]


@dataclass(frozen=True, eq=False)
class Artifact:
    """A pruned network that was read from disk.

    Attributes:
        network: The slim network, in evaluation mode, float32.
        description: Content of ``pruning.json``.
        widths: Units kept per group.
    """

    network: nn.Module
    description: dict[str, Any]
    widths: tuple[int, ...]


def load_artifact(
    folder: Path,
    network: nn.Module | None = None,
    *,
    model: str | None = None,
    trust: bool = False,
) -> Artifact:
    """Rebuild a pruned network: the dense one by name, slimmed as described, its weights loaded.

    Networks of prunetune, torchvision and timm are rebuilt by their names. No other code is run
    unless the caller says so. What is described and the weights are compared with their digests,
    and the outputs on fixed images with those of the network that was written.

    Args:
        folder: An artifact's folder.
        network: The dense network, with any weights, which is copied; needed where the artifact's
            was one of a Python session, for which no name stands.
        model: How the dense network is built, instead of what the artifact says: for example
            ``file.py:Net`` where that file has moved. It may be run.
        trust: Whether the user's own file or module that the artifact names may be run, and
            whether sizes that are unusual are believed.

    Raises:
        PruneTuneError: If the folder is not an artifact, was changed since, is not of this
            network, or needs code that the caller does not trust.
    """
    return read_artifact(folder, Reader(network, model, trust))[0]


def read_artifact(folder: Path, reader: Reader) -> tuple[Artifact, Claims]:
    """An artifact, and what it claims.

    Raises:
        PruneTuneError: As :func:`load_artifact`.
    """
    content = read_content(folder)
    claims = read_description(content, folder)
    if not reader.trust:
        check_bounds(claims.network, folder)

    def reduce(dense: nn.Module) -> nn.Module:
        if not isinstance(claims, Description):
            return slimmed(dense, traced_channels(dense, claims, folder), folder)
        slim = slimmed(dense, as_kept(claims.layers, dense, folder), folder)
        return with_replaced(slim, claims.replaced, folder)

    # Tensors made in inference mode never have gradients, and tracing needs them.
    with torch.inference_mode(mode=False), torch.enable_grad():
        network = rebuild(folder, claims, reader, reduce)
    if isinstance(claims, Description):
        _check_outputs(network, claims, folder)
    return Artifact(network, content, tuple(claims.widths.values())), claims


def _check_outputs(network: nn.Module, description: Description, folder: Path) -> None:
    expected = torch.tensor(description.outputs)
    named = description.network
    images = probe_images(named.shape, len(expected))
    try:
        error = difference(run(network, images, named.num_classes), expected)
    except NetworkError as broken:
        raise NetworkError(f"The artifact {folder} cannot be rebuilt. {broken}") from broken
    if not error <= TOLERANCE:
        raise NetworkError(
            f"The network of {folder} gives other outputs than the one that was written (they "
            f"differ by {error:.2g} of the largest); give the code and the packages that built it."
        )
