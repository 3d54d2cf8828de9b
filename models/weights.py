"""Reading and writing the weights of a network, and refusing those of another one."""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import WeightsError

__all__ = ["hash_weights", "load_weights", "read_weights", "save_weights"]

# Where checkpoints keep the weights, and what wrappers put in front of every name.
_ENTRIES = ("state_dict", "model_state_dict", "model", "net", "network")
_PREFIXES = ("module.", "_orig_mod.", "model.")
# Bookkeeping of BatchNorm that many checkpoints leave out.
_OPTIONAL = "num_batches_tracked"
_SHOWN = 3


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors``, ``.pt`` or ``.pth`` file, without running code.

    Args:
        path: The file. Checkpoints that keep the weights under ``state_dict`` (or ``model``, ...)
            and names that all begin with ``module.`` (or ``_orig_mod.``, ``model.``) are
            understood.

    Returns:
        Tensors by name, on the CPU, as stored.

    Raises:
        WeightsError: If the file is missing, of another kind, corrupt or without tensors.
    """
    path = path.expanduser()
    if not path.is_file():
        raise WeightsError(f"The weights file {path} does not exist; set task.weights to one.")
    if path.suffix == ".safetensors":
        try:
            weights: Mapping[str, object] = safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is not a readable safetensors file: {error}.") from error
    elif path.suffix in (".pt", ".pth"):
        weights = _read_pickled(path)
    else:
        raise WeightsError(f"{path} must end with .safetensors, .pt or .pth.")
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors; save the state_dict of the network.")
    return tensors


def load_weights(network: nn.Module, path: Path) -> None:
    """Copy the weights of a file into ``network``, in place.

    Raises:
        WeightsError: If the file cannot be read or belongs to another architecture; the message
            names some of the tensors that do not fit.
    """
    wanted = network.state_dict()
    weights = _unwrapped(read_weights(path), wanted)
    missing = [name for name in wanted if name not in weights and not name.endswith(_OPTIONAL)]
    unexpected = [name for name in weights if name not in wanted]
    misshaped = [
        name for name in wanted if name in weights and weights[name].shape != wanted[name].shape
    ]
    if missing or unexpected or misshaped:
        raise WeightsError(_mismatch(path, weights, wanted, missing, unexpected, misshaped))
    network.load_state_dict(weights, strict=False)


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file, so that ``path`` is whole or absent at any time.

    Args:
        weights: Tensors by name; copied to the CPU.
        path: The file; its folder is made when missing.

    Raises:
        WeightsError: If the file cannot be written.
    """
    stored = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
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


def _read_pickled(path: Path) -> Mapping[str, object]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, and its code is not run; save only the state_dict: "
            "torch.save(network.state_dict(), path)."
        ) from error
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"{path} is not a readable PyTorch file: {reason}.") from error
    if isinstance(content, Mapping):
        for entry in _ENTRIES:
            inner = content.get(entry)
            if isinstance(inner, Mapping):
                return inner
        return content
    raise WeightsError(f"{path} holds a {type(content).__name__}; save the state_dict instead.")


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


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
