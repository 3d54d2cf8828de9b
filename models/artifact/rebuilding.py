"""From a dense network, what was kept, and a file of weights to the pruned network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor, nn

from ...errors import NetworkError, WeightsError
from ..layers import adapter_of
from ..reductions.channels import KeptChannels, slim_layers
from ..weights import load_weights
from .dense import Reader, blank_dense, dense_network
from .description import Claims, Description, LayerChannels
from .files import WEIGHTS, file_digest, file_inside
from .forms import given_memory

__all__ = ["Reduce", "as_kept", "rebuild", "slimmed"]

Reduce = Callable[[nn.Module], nn.Module]
"""From the dense network to the pruned one, with any weights."""

# A dense network this large is built for any file of weights, a larger one only up to this many
# times its size (our choice).
_ALWAYS_BYTES, _LARGEST_RATIO = 2**30, 256
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def rebuild(folder: Path, claims: Claims, reader: Reader, reduce: Reduce) -> nn.Module:
    """The pruned network of an artifact, its weights loaded after their digest was compared.

    The header of the file of weights is compared with the network first, and where the network
    can be built without values nothing is allocated before.

    Args:
        folder: The artifact.
        claims: Its description.
        reader: What its reader says of the dense network.
        reduce: Prunes the dense network as the description says.

    Returns:
        In evaluation mode, float32; all parameters can be trained on.

    Raises:
        PruneTuneError: If anything does not fit.
    """
    path = file_inside(folder, WEIGHTS)
    header = _header(path)
    # Tracing, which the first format needs, runs the network.
    traced = not isinstance(claims, Description)
    blank = None if traced else blank_dense(claims.network, reader)
    if blank is not None:
        pruned = reduce(blank)
        _check_header(header, pruned, path)
        _check_digest(path, claims)
        if _is_all_in_weights(pruned):
            return _loaded(pruned, path)
        _check_room(blank, path)
    pruned = reduce(dense_network(folder, claims.network, reader))
    _check_header(header, pruned, path)
    _check_digest(path, claims)
    return _loaded(pruned, path)


def as_kept(layers: Mapping[str, LayerChannels], network: nn.Module, folder: Path) -> KeptChannels:
    """The channels that an artifact says its layers keep, compared with the dense network's.

    Raises:
        NetworkError: If the network has no such layer or no such channels.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    kept: KeptChannels = {}
    for name, said in layers.items():
        module = modules.get(name)
        adapter = None if module is None else adapter_of(module)
        if module is None or adapter is None:
            raise NetworkError(
                f"The artifact {folder} keeps channels of {name!r}, and the dense network has no "
                "such layer (it has other channel groups); give the network that was pruned."
            )
        written, read = adapter.channels(module)
        for channels, size in ((said.outputs, written), (said.inputs, read)):
            if channels is not None and channels[-1] >= size:
                raise NetworkError(
                    f"The artifact {folder} keeps channel {channels[-1]} of {name!r}, and the "
                    f"dense network has {size}; give the network that was pruned."
                )
        kept[name] = (_indices(said.outputs), _indices(said.inputs))
    return kept


def slimmed(network: nn.Module, kept: KeptChannels, folder: Path) -> nn.Module:
    """The dense network with fewer channels.

    Raises:
        NetworkError: If what is kept of one layer is not what it can keep.
    """
    try:
        return slim_layers(network, kept)
    except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise NetworkError(
            f"The artifact {folder} keeps channels that its layers cannot keep "
            f"({type(error).__name__}: {error}); write it again."
        ) from error


def _indices(channels: list[int] | None) -> Any:
    return None if channels is None else np.array(channels, dtype=np.int64)


def _header(path: Path) -> dict[str, tuple[list[int], str]]:
    """Shape and type of every tensor in a safetensors file, whose values are not read."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            return {n: (list(each.get_shape()), each.get_dtype()) for n, each in slices.items()}
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}.") from error


def _check_header(
    header: Mapping[str, tuple[list[int], str]], network: nn.Module, path: Path
) -> None:
    wanted = {
        name: (list(value.shape), _TYPES.get(value.dtype, str(value.dtype)))
        for name, value in network.state_dict().items()
        if isinstance(value, Tensor)
    }
    for name in sorted(wanted.keys() | header.keys()):
        if wanted.get(name) != header.get(name):
            found, needed = _text(header.get(name)), _text(wanted.get(name))
            raise WeightsError(
                f"The weights in {path} belong to another network than the one that was rebuilt: "
                f"they have {found} for {name[:200]!r}, which needs {needed}."
            )


def _text(tensor: tuple[list[int], str] | None) -> str:
    return "nothing" if tensor is None else f"{tensor[1]} {tensor[0]}"


def _check_digest(path: Path, claims: Claims) -> None:
    if file_digest(path) != claims.weights_sha256:
        raise NetworkError(
            f"The weights in {path} are not those that pruning.json describes; one of the two was "
            "changed after they were written."
        )


def _check_room(dense: nn.Module, path: Path) -> None:
    size = sum(each.numel() * each.element_size() for each in dense.parameters())
    if size > max(_ALWAYS_BYTES, _LARGEST_RATIO * path.stat().st_size):
        raise NetworkError(
            f"The dense network of {path.parent} needs {size:,} bytes, far more than its weights "
            "are worth; if it is yours, give it: load(FOLDER, network=NETWORK)."
        )


def _is_all_in_weights(blank: nn.Module) -> bool:
    """Whether weights say every value of a network, which may hold tensors of its own, too."""
    for module in blank.modules():
        others = (module._buffers[name] for name in module._non_persistent_buffers_set)
        if any(isinstance(each, Tensor) for each in itertools.chain(others, vars(module).values())):
            return False
    return True


def _loaded(network: nn.Module, path: Path) -> nn.Module:
    load_weights(given_memory(network), path)
    return network.requires_grad_(True).eval()
