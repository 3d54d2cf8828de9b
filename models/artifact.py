"""Artifacts: a pruned network on disk that reloads without pickle and can be verified."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .._live import is_live, live_name, live_object
from ..errors import NetworkError, PruneTuneError
from .calls import count_flops
from .coupling import GroupScope, trace_channel_groups
from .groups import ChannelGroups
from .live import LiveTask, own_copy
from .reductions.channels import slim
from .weights import load_weights, save_weights
from .zoo import build_network

__all__ = ["Artifact", "load_artifact", "save_artifact", "verify_artifact"]

DESCRIPTION, WEIGHTS = "pruning.json", "model.safetensors"
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Artifact:
    """A pruned network that was read from disk.

    Attributes:
        network: The slim network, in evaluation mode, float32.
        description: Content of ``pruning.json``.
        groups: Channel groups of the dense network.
        widths: Units kept per group.
    """

    network: nn.Module
    description: dict[str, Any]
    groups: ChannelGroups
    widths: tuple[int, ...]


def save_artifact(
    folder: Path,
    network: nn.Module,
    *,
    model: str,
    num_classes: int,
    input_shape: tuple[int, int, int],
    scope: GroupScope,
    kept: Mapping[str, Sequence[int]],
    provenance: Mapping[str, Any],
    measured: Mapping[str, Any],
) -> None:
    """Write a pruned network.

    Args:
        folder: Where to; made when missing. The description is written last, so a folder that has
            one is whole.
        network: The slim network, in any mode, on any device.
        model: How the dense network is built: zoo name, ``torchvision:NAME`` or the user's own
            ``file.py:function``.
        num_classes: Outputs of the network.
        input_shape: (channels, height, width) of an image.
        scope: Channel groups that were decided.
        kept: Units that were kept, by group name, ascending.
        provenance: Where the network comes from; JSON-serialisable.
        measured: Numbers measured on it; JSON-serialisable. ``flops`` and ``params`` are added.

    Raises:
        WeightsError: If the folder cannot be written.
    """
    example = torch.zeros(1, *input_shape)
    save_weights(network.state_dict(), folder / WEIGHTS)
    description = {
        "format": _FORMAT,
        "network": {
            "model": model,
            "num_classes": num_classes,
            "input_shape": list(input_shape),
            "groups": scope,
        },
        "weights_sha256": _digest(folder / WEIGHTS),
        "kept": {name: [int(unit) for unit in units] for name, units in kept.items()},
        "widths": {name: len(units) for name, units in kept.items()},
        "provenance": dict(provenance),
        "measured": {
            **measured,
            "flops": count_flops(network, example),
            "params": _count_params(network),
        },
    }
    partial = folder / f".{DESCRIPTION}.partial"
    partial.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / DESCRIPTION)


def load_artifact(folder: Path, network: nn.Module | None = None) -> Artifact:
    """Rebuild a pruned network: the dense one by name, slimmed as described, its weights loaded.

    The network is in evaluation mode, and all its parameters can be trained on.

    Args:
        folder: An artifact's folder.
        network: The dense network, which is copied; needed where the artifact's was one of a
            Python session, for which no name stands.

    Raises:
        PruneTuneError: If the folder is not an artifact, was changed since, or is not of this
            network.
    """
    # Tracing needs gradients, which tensors made in inference mode never have.
    with torch.inference_mode(mode=False):
        return _rebuild(folder, network)


def _rebuild(folder: Path, given: nn.Module | None) -> Artifact:
    description = _read_description(folder)
    try:
        spec = description["network"]
        shape = tuple(spec["input_shape"])
        network = _dense(folder, spec["model"], spec["num_classes"], shape, given)
        groups = trace_channel_groups(network, torch.zeros(1, *shape), spec["groups"])
        kept = description["kept"]
        if given is not None and kept.keys() != {group.name for group in groups}:
            raise _another_network(folder)
        units = [np.array(kept[group.name], dtype=np.int64) for group in groups]
        claimed = [description["widths"][group.name] for group in groups]
    except (KeyError, TypeError, ValueError) as error:
        raise NetworkError(
            f"The artifact {folder} does not describe its network ({type(error).__name__}: "
            f"{error}); write it again."
        ) from error
    for group, chosen, width in zip(groups, units, claimed, strict=True):
        whole = chosen.ndim == 1 and len(chosen) and np.array_equal(chosen, np.unique(chosen))
        if not whole or len(chosen) != width or not 0 <= chosen.min() <= chosen.max() < group.size:
            raise NetworkError(
                f"The artifact {folder} does not keep 1 to {group.size} units of {group.name} as "
                "its widths say; its pruning.json was changed."
            )
    slimmed = slim(network, groups, units).requires_grad_(True)
    load_weights(slimmed, folder / WEIGHTS)
    return Artifact(slimmed.eval(), description, groups, tuple(len(chosen) for chosen in units))


def _dense(
    folder: Path,
    model: str,
    num_classes: int,
    shape: tuple[int, ...],
    given: nn.Module | None,
) -> nn.Module:
    """The dense network, which the user gives where no name stands for it."""
    if given is not None:
        return own_copy(given)
    if is_live(model):
        try:
            live: LiveTask = live_object(model)
        except KeyError:
            raise NetworkError(
                f"The artifact {folder} was made of {live_name(model)}, a network of a Python "
                "session; give the dense network: prunetune.load(FOLDER, network=NETWORK)."
            ) from None
        return live.copy_network()
    channels, height, width = shape
    return build_network(model, num_classes, (channels, height, width))


def _another_network(folder: Path) -> NetworkError:
    return NetworkError(
        f"The network that was given has other channel groups than the one that {folder} was made "
        "of; give the dense network before pruning."
    )


def verify_artifact(folder: Path) -> dict[str, Any]:
    """Rebuild an artifact and recount everything it claims about its size.

    Args:
        folder: An artifact's folder.

    Returns:
        ``flops`` and ``params`` as fractions of the dense network's and absolute, the widths, and
        the network's measured numbers.

    Raises:
        PruneTuneError: If the artifact is broken, its numbers do not agree with its network, or the
            network is over a budget that the artifact claims to keep.
    """
    artifact = load_artifact(folder)
    structure = artifact.groups.structure
    description = artifact.description
    shape = description["network"]["input_shape"]
    if description.get("weights_sha256") != _digest(folder / WEIGHTS):
        raise NetworkError(
            f"The weights in {folder} are not those that its pruning.json describes; "
            "one of the two was changed after they were written."
        )
    try:
        measured = description["measured"]
        claimed = {name: int(measured[name]) for name in ("flops", "params")}
        budgets = {
            name: float(limit)
            for name, limit in description["provenance"].get("budgets", {}).items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NetworkError(
            f"The artifact {folder} does not say what was measured on it ({type(error).__name__}: "
            f"{error}); write it again."
        ) from error
    counts = {
        "flops": (
            claimed["flops"],
            int(structure.flops(artifact.widths)),
            count_flops(artifact.network, torch.zeros(1, *shape)),
        ),
        "params": (
            claimed["params"],
            int(structure.params(artifact.widths)),
            _count_params(artifact.network),
        ),
    }
    for name, (written, table, counted) in counts.items():
        if not written == table == counted:
            raise NetworkError(
                f"The artifact {folder} claims {written} {name}, its tables say {table} and its "
                f"network has {counted}; it was changed after it was written."
            )
    fractions = {
        "flops": counts["flops"][2] / structure.dense_flops,
        "params": counts["params"][2] / structure.dense_params,
    }
    for name, limit in budgets.items():
        if name in fractions and fractions[name] > limit:
            raise PruneTuneError(
                f"The artifact {folder} needs {fractions[name]:.4f} of the dense network's {name}, "
                f"more than its budget of {limit}."
            )
    return {
        "flops": counts["flops"][2],
        "flops_fraction": fractions["flops"],
        "params": counts["params"][2],
        "params_fraction": fractions["params"],
        "budgets": budgets,
        "widths": description["widths"],
        "measured": measured,
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _count_params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise NetworkError(
            f"{folder} is not an artifact: it has no {DESCRIPTION}; "
            "give a folder such as RUN/best/TRIAL."
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise NetworkError(
            f"{path} is not valid JSON ({error}); write the artifact again."
        ) from None
    found = description.get("format") if isinstance(description, dict) else None
    if found != _FORMAT:
        raise NetworkError(
            f"{path} has format {found}, this version reads format {_FORMAT}; "
            "use the prunetune that wrote it."
        )
    return description
