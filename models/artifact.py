"""Artifacts: a pruned network on disk that reloads without pickle and can be verified."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import NetworkError, PruneTuneError
from .coupling import GroupScope, trace_channel_groups
from .groups import ChannelGroups
from .slimming import slim
from .weights import load_weights, save_weights
from .zoo import build_network

__all__ = ["Artifact", "count_flops", "load_artifact", "save_artifact", "verify_artifact"]

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
    description = {
        "format": _FORMAT,
        "network": {
            "model": model,
            "num_classes": num_classes,
            "input_shape": list(input_shape),
            "groups": scope,
        },
        "kept": {name: [int(unit) for unit in units] for name, units in kept.items()},
        "widths": {name: len(units) for name, units in kept.items()},
        "provenance": dict(provenance),
        "measured": {
            **measured,
            "flops": count_flops(network, example),
            "params": _count_params(network),
        },
    }
    save_weights(network.state_dict(), folder / WEIGHTS)
    partial = folder / f".{DESCRIPTION}.partial"
    partial.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / DESCRIPTION)


def load_artifact(folder: Path) -> Artifact:
    """Rebuild a pruned network: the dense one by name, slimmed as described, its weights loaded.

    Args:
        folder: An artifact's folder.

    Raises:
        PruneTuneError: If the folder is not an artifact, or was changed since.
    """
    description = _read_description(folder)
    try:
        spec = description["network"]
        shape = tuple(spec["input_shape"])
        network = build_network(spec["model"], spec["num_classes"], shape)
        groups = trace_channel_groups(network, torch.zeros(1, *shape), spec["groups"])
        kept = description["kept"]
        units = [np.array(kept[group.name], dtype=np.int64) for group in groups]
    except (KeyError, TypeError, ValueError) as error:
        raise NetworkError(
            f"The artifact {folder} does not describe its network ({type(error).__name__}: "
            f"{error}); write it again."
        ) from error
    for group, chosen in zip(groups, units, strict=True):
        if not len(chosen) or chosen.min() < 0 or chosen.max() >= group.size:
            raise NetworkError(
                f"The artifact {folder} keeps units of {group.name} that it does not have; "
                "its pruning.json was changed."
            )
    slimmed = slim(network, groups, units)
    load_weights(slimmed, folder / WEIGHTS)
    return Artifact(slimmed.eval(), description, groups, tuple(len(chosen) for chosen in units))


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
    shape = artifact.description["network"]["input_shape"]
    measured = artifact.description["measured"]
    counts = {
        "flops": (
            measured["flops"],
            int(structure.flops(artifact.widths)),
            count_flops(artifact.network, torch.zeros(1, *shape)),
        ),
        "params": (
            measured["params"],
            int(structure.params(artifact.widths)),
            _count_params(artifact.network),
        ),
    }
    for name, (claimed, table, counted) in counts.items():
        if not claimed == table == counted:
            raise NetworkError(
                f"The artifact {folder} claims {claimed} {name}, its tables say {table} and its "
                f"network has {counted}; it was changed after it was written."
            )
    fractions = {
        "flops": counts["flops"][2] / structure.dense_flops,
        "params": counts["params"][2] / structure.dense_params,
    }
    budgets = artifact.description["provenance"].get("budgets", {})
    for name, limit in budgets.items():
        if name in fractions and fractions[name] > float(limit):
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
        "widths": artifact.description["widths"],
        "measured": measured,
    }


def count_flops(network: nn.Module, example_input: torch.Tensor) -> int:
    """FLOPs at batch 1 by ``torch.utils.flop_counter`` (2 x multiply-accumulates).

    Args:
        network: Any network; its mode is not changed for longer than the count.
        example_input: One image [1, C, H, W].
    """
    training = network.training
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(example_input)
    network.train(training)
    return int(counter.get_total_flops())


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
