"""Reading and writing the weights of a network, and refusing those of another one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import WeightsError
from .weight_files import read_file
from .zoo.permanent import has_computed_parameters, make_permanent

__all__ = ["check_values", "hash_weights", "load_weights", "read_weights", "save_weights"]

# What wrappers put in front of every name.
_PREFIXES = ("module.", "_orig_mod.", "model.")
# Bookkeeping of BatchNorm that many checkpoints leave out.
_OPTIONAL = "num_batches_tracked"
_VARIANCE = "running_var"
_SHOWN = 3


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file or of what ``torch.save`` wrote, without running code.

    Args:
        path: The file, of any ending. Checkpoints that keep the weights under ``state_dict`` (or
            ``model``, ...) are understood.

    Returns:
        Tensors by name, on the CPU, as stored.

    Raises:
        WeightsError: If the file is missing, of another kind, corrupt or without tensors.
    """
    path = path.expanduser()
    found = read_file(path)
    # A pickle may use anything as a key.
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors; save the state_dict of the network.")
    return tensors


def load_weights(network: nn.Module, path: Path) -> None:
    """Copy the weights of a file into ``network``, in place.

    Args:
        network: Its tensors keep their types; those of the file are converted.
        path: The file. Names that all begin with ``module.`` (or ``_orig_mod.``, ``model.``) are
            understood.

    Raises:
        WeightsError: If the file cannot be read, belongs to another architecture, or holds values
            that no trained network has; the message names some of the tensors.
    """
    wanted = network.state_dict()
    weights = _unwrapped(read_weights(path), wanted)
    if _missing(weights, wanted) and has_computed_parameters(network):
        # What the network computes may have been made permanent before it was saved.
        make_permanent(network)
        wanted = network.state_dict()
        weights = _unwrapped(weights, wanted)
    missing = _missing(weights, wanted)
    unexpected = [name for name in weights if name not in wanted]
    misshaped = [
        name for name in wanted if name in weights and weights[name].shape != wanted[name].shape
    ]
    if missing or unexpected or misshaped:
        raise WeightsError(_mismatch(path, weights, wanted, missing, unexpected, misshaped))
    check_values(weights, wanted, path)
    ready = OrderedDict(weights)
    # Modules with several layouts of weights ask which one this is: theirs, as all shapes agree.
    ready._metadata = getattr(wanted, "_metadata", {})  # type: ignore[attr-defined]
    network.load_state_dict(ready, strict=False)


def check_values(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: Path) -> None:
    """Refuse values that no trained network has.

    Args:
        weights: Tensors by name.
        wanted: What they are for, by the same names.
        source: Where they come from, for messages.

    Raises:
        WeightsError: If whole numbers stand for real ones or the other way round, if values are
            not finite that are so in a new network, or if a running variance is negative.
    """
    for name, value in weights.items():
        if value.is_complex() or value.is_floating_point() != wanted[name].is_floating_point():
            raise WeightsError(
                f"The weights in {source} have {name} as {_type_of(value)}, but the network needs "
                f"{_type_of(wanted[name])}; save them as the network has them."
            )
        # A mask of a module's own may well be infinite.
        if not _is_finite(value) and _is_finite(wanted[name]):
            raise WeightsError(
                f"The weights in {source} have NaN or infinite values in {name}; give weights of a "
                "training that did not diverge."
            )
        if name.endswith(_VARIANCE) and bool((value < 0).any()):
            raise WeightsError(
                f"The weights in {source} have a negative variance in {name}; the file was changed "
                "after the network was trained."
            )


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file, so that ``path`` is whole or absent at any time.

    Args:
        weights: Tensors by name; copied to the CPU.
        path: The file; its folder is made when missing.

    Raises:
        WeightsError: If the file cannot be written.
    """
    stored: dict[str, Tensor] = {}
    memories: set[int] = set()
    for name, value in weights.items():
        ready = value.detach().cpu().contiguous()
        memory = ready.untyped_storage().data_ptr()
        # Tied weights share their memory; each of their names is written.
        stored[name] = ready.clone() if memory in memories else ready
        memories.add(memory)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        safetensors.torch.save_file(stored, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise WeightsError(f"The weights file {path} cannot be written: {error}.") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def hash_weights(network: nn.Module) -> str:
    """SHA-256 of all parameters and buffers by name, but for BatchNorm's bookkeeping."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if name.endswith(_OPTIONAL):
            continue
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _missing(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    return [name for name in wanted if name not in weights and not name.endswith(_OPTIONAL)]


def _unwrapped(weights: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop wrappers' prefixes for as long as that makes names fit."""
    for _ in range(len(_PREFIXES)):
        for prefix in _PREFIXES:
            if all(name.startswith(prefix) for name in weights) and not set(weights) & set(wanted):
                weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _mismatch(
    path: Path,
    weights: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    misshaped: list[str],
) -> str:
    if not missing and not unexpected and _only_outputs_differ(weights, wanted, misshaped):
        theirs, ours = weights[misshaped[0]].shape[0], wanted[misshaped[0]].shape[0]
        return (
            f"The weights in {path} are for {theirs} classes but the data has {ours}; "
            "give weights trained on this data, or the data they were trained on."
        )
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing ({_some(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected ({_some(unexpected)})")
    if misshaped:
        shapes = [
            f"{name} is {tuple(weights[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in misshaped
        ]
        problems.append(f"{len(misshaped)} of another shape ({_some(shapes)})")
    return (
        f"The weights in {path} belong to another architecture than task.model: tensors "
        f"{'; '.join(problems)}."
    )


def _only_outputs_differ(
    weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], misshaped: list[str]
) -> bool:
    """Whether one layer, as a classifier, has another number of outputs, and nothing else."""
    return len({name.rpartition(".")[0] for name in misshaped}) == 1 and all(
        weights[name].shape[0] != wanted[name].shape[0]
        and weights[name].shape[1:] == wanted[name].shape[1:]
        for name in misshaped
        if weights[name].ndim == wanted[name].ndim > 0
    )


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())


def _type_of(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
