"""The dense network of an artifact, and whose word is enough to run a file that builds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..._live import is_live, live_name, live_object
from ...errors import NetworkError, PluginError
from ..live import LiveTask, own_copy
from ..zoo.build import build_blank_network, build_network, runs_own_code
from ..zoo.permanent import has_computed_parameters, make_permanent
from .description import NetworkName

__all__ = ["Reader", "blank_dense", "dense_network"]

# Random numbers of a new network, which reading must not depend on.
_SEED = 11


@dataclass(frozen=True)
class Reader:
    """What the one who reads an artifact says of its dense network.

    Attributes:
        network: The dense network itself, with any weights.
        model: How it is built, in place of what the artifact says; a file of it may be run.
        trust: Whether a file or module that the artifact names may be run.
    """

    network: nn.Module | None = None
    model: str | None = None
    trust: bool = False


def dense_network(folder: Path, named: NetworkName, reader: Reader) -> nn.Module:
    """The dense network, with any weights, to be changed freely.

    Args:
        folder: The artifact, for messages.
        named: What it says of its dense network.
        reader: What its reader says of it.

    Raises:
        PruneTuneError: If it would have to be built by code that the reader does not trust, is of
            another Python session, or cannot be built.
    """
    if reader.network is not None:
        return own_copy(reader.network)
    model = reader.model or named.model
    if is_live(model):
        try:
            live: LiveTask = live_object(model)
        except KeyError:
            raise NetworkError(
                f"The artifact {folder} was made of {live_name(model)!r}, a network of a Python "
                "session; give the dense network: prunetune.load(FOLDER, network=NETWORK), or the "
                "file and name that build it: --model FILE.py:NAME."
            ) from None
        return live.copy_network()
    if runs_own_code(model) and reader.model is None and not reader.trust:
        raise NetworkError(
            f"The artifact {folder} is of a network that {_code(model)} builds, and nothing is run "
            "that an artifact names; look at it and, if you trust it, say so: trust=True "
            "(--trust). Or name your own: model='FILE.py:NAME' (--model FILE.py:NAME)."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        try:
            network = build_network(model, named.num_classes, named.shape)
        except PluginError as error:
            raise PluginError(
                f"{error} The artifact {folder} needs it; if it has moved, say where it is: "
                "model='FILE.py:NAME' (--model FILE.py:NAME)."
            ) from error
    make_permanent(network)
    return network


def blank_dense(named: NetworkName, reader: Reader) -> nn.Module | None:
    """The dense network without values, and so without memory for them.

    Returns:
        None where only building it with values says what it is: where it is given, where code of
        a user's builds it, or where its own code asks for values.

    Raises:
        UnknownNameError: If there is no such network.
    """
    model = reader.model or named.model
    if reader.network is not None or is_live(model) or runs_own_code(model):
        return None
    try:
        network = build_blank_network(model, named.num_classes, named.shape)
    except NetworkError:
        return None
    return None if has_computed_parameters(network) else network


def _code(model: str) -> str:
    """The file or module that a reference names, for people."""
    location = model.rpartition(":")[0]
    if location.endswith(".py"):
        return f"the file {str(Path(location).expanduser().absolute())!r}"
    return f"the module {location!r}"
