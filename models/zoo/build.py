"""From a name in a spec to a network."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from ..._nearest import pick
from ..._references import is_reference, resolve
from ..._registry import Registry
from ...errors import NetworkError, PruneTuneError
from ..progress import SILENT, Progress
from .adapt import adapt_input_channels, own_activations, unwrap
from .digits import digits_net
from .mobilenet import mobilenetv2
from .resnet import cifar_resnet, resnet18
from .vgg import VGG

__all__ = [
    "NETWORKS",
    "NetworkBuilder",
    "build_blank_network",
    "build_network",
    "check_model",
    "runs_own_code",
]

NetworkBuilder = Callable[[int, tuple[int, int, int]], nn.Module]
"""Builds a network from the number of classes and the (channels, height, width) of an image."""

NETWORKS: Registry[NetworkBuilder] = Registry(
    "model",
    {
        "digits-net": digits_net,
        **{f"resnet{depth}": partial(cifar_resnet, depth) for depth in (20, 32, 44, 56, 110)},
        "resnet18": resnet18,
        **{f"vgg{depth}bn": partial(VGG, depth) for depth in (11, 13, 16, 19)},
        "mobilenetv2": mobilenetv2,
    },
    forms={
        "torchvision:NAME": "A classification network of torchvision, for example resnet50.",
        "timm:NAME": "A network of timm, for example resnet18; needs the package timm.",
        "FILE.py:FUNCTION": "A function that builds the user's own network.",
    },
)
"""Our own networks by name."""

_TORCHVISION, _TIMM = "torchvision:", "timm:"
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def build_network(
    reference: str,
    num_classes: int,
    input_shape: tuple[int, int, int],
    progress: Progress = SILENT,
) -> nn.Module:
    """Build a network with fresh weights, drawn from torch's global random state.

    Args:
        reference: A name of ``NETWORKS``, ``torchvision:NAME``, ``timm:NAME``, or the user's own
            function or class as ``path/to/file.py:NAME`` or ``module:NAME``. The user's may take
            ``num_classes`` and ``input_shape``, one of them, or nothing.
        num_classes: Outputs the network must have.
        input_shape: (channels, height, width) of an image.
        progress: Receives a note where the user's network was wrapped for parallel training.

    Returns:
        The network in evaluation mode, float32, on the CPU.

    Raises:
        UnknownNameError: If there is no such network; the message suggests the nearest name.
        PluginError: If the user's file or module cannot be imported.
        NetworkError: If building fails or gives something that is not a network.
    """
    return _build(reference, num_classes, input_shape, progress).float().cpu().eval()


def build_blank_network(
    reference: str, num_classes: int, input_shape: tuple[int, int, int]
) -> nn.Module:
    """Build a network on the meta device: sizes without values, and without memory for them.

    Args:
        reference: As for `build_network`, of no code of the user's.
        num_classes: Outputs the network must have.
        input_shape: (channels, height, width) of an image.

    Raises:
        UnknownNameError: If there is no such network; the message suggests the nearest name.
        NetworkError: If it cannot be built without values.
    """
    assert not runs_own_code(reference)
    try:
        with torch.device("meta"):
            return _build(reference, num_classes, input_shape).float().eval()
    except PruneTuneError:
        raise
    except Exception as error:
        raise NetworkError(
            f"The model {reference!r} cannot be built without values: "
            f"{type(error).__name__}: {error}"
        ) from error


def runs_own_code(reference: str) -> bool:
    """Say whether building a network by this name imports a file or module of the user's own."""
    return is_reference(reference) and not reference.startswith((_TORCHVISION, _TIMM))


def _build(
    reference: str,
    num_classes: int,
    input_shape: tuple[int, int, int],
    progress: Progress = SILENT,
) -> nn.Module:
    if reference.startswith(_TORCHVISION):
        return _from_torchvision(reference, num_classes, input_shape)
    if reference.startswith(_TIMM):
        return _from_timm(reference, num_classes, input_shape)
    if is_reference(reference):
        return _from_user(reference, num_classes, input_shape, progress)
    return NETWORKS.find(reference)(num_classes, input_shape)


def check_model(reference: str, own: bool = True) -> None:
    """Check that a spec names a network, before time is spent on anything.

    Args:
        reference: As for `build_network`.
        own: Whether the user's own file is imported; otherwise its name is believed.

    Raises:
        UnknownNameError: If there is no such network; the message suggests the nearest name.
        PluginError: If the user's file or module cannot be imported.
    """
    if reference.startswith(_TORCHVISION):
        _torchvision_name(reference)
    elif reference.startswith(_TIMM):
        _timm_name(reference)
    else:
        NETWORKS.check(reference, own)


def _from_torchvision(
    reference: str, num_classes: int, input_shape: tuple[int, int, int]
) -> nn.Module:
    name = _torchvision_name(reference)
    options: dict[str, Any] = {"num_classes": num_classes}
    if name in _WITH_AUXILIARY_HEADS:
        options |= {"aux_logits": False, "init_weights": True}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    adapt_input_channels(network, input_shape[0])
    own_activations(network)
    return network


def _torchvision_name(reference: str) -> str:
    known = {name: name for name in torchvision.models.list_models(module=torchvision.models)}
    return pick("torchvision model", reference.removeprefix(_TORCHVISION), known)


def _from_timm(reference: str, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    name = _timm_name(reference)
    import timm

    channels, height, width = input_shape
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": channels}
    if timm.get_pretrained_cfg(name, allow_unregistered=True).fixed_input_size:
        options["img_size"] = (height, width)
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, **options)
    except Exception as error:
        raise NetworkError(
            f"The model {reference!r} cannot be built: {type(error).__name__}: {error}"
        ) from error
    own_activations(network)
    return network


def _timm_name(reference: str) -> str:
    """Check one of timm's own names; other forms would fetch a network from somewhere."""
    found = importlib.util.find_spec("timm")
    try:
        installed = importlib.metadata.distribution("timm").locate_file("timm/__init__.py")
    except importlib.metadata.PackageNotFoundError:
        installed = None
    if found is None or installed is None:
        raise NetworkError(f"The model {reference!r} needs one more package: pip install timm.")
    # An artifact may name it, and must not get a file that lies beside it run.
    if found.origin is None or Path(found.origin).resolve() != Path(str(installed)).resolve():
        raise NetworkError(
            f"The model {reference!r} needs timm, and {found.origin} is not the one that is "
            "installed; remove it."
        )
    import timm

    known = {name: name for name in timm.list_models()}
    return pick("timm model", reference.removeprefix(_TIMM), known)


def _from_user(
    reference: str, num_classes: int, input_shape: tuple[int, int, int], progress: Progress
) -> nn.Module:
    build = resolve(reference, "model")
    if isinstance(build, nn.Module):
        raise NetworkError(
            f"The model {reference!r} is a network already; name a function that builds it."
        )
    if not callable(build):
        raise NetworkError(
            f"The model {reference!r} is a {type(build).__name__}; "
            "name a function that returns a torch.nn.Module."
        )
    offered = {"num_classes": num_classes, "input_shape": input_shape}
    wanted = inspect.signature(build).parameters
    missing = [
        name
        for name, parameter in wanted.items()
        if name not in offered
        and parameter.default is inspect.Parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    if missing:
        raise NetworkError(
            f"The model {reference!r} needs {', '.join(missing)}; "
            "only num_classes and input_shape are passed, so give the others defaults."
        )
    try:
        network = build(**{name: value for name, value in offered.items() if name in wanted})
    except Exception as error:
        raise NetworkError(
            f"The model {reference!r} cannot be built: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise NetworkError(
            f"The model {reference!r} returned a {type(network).__name__}; "
            "it must return a torch.nn.Module."
        )
    network, note = unwrap(network)
    if note is not None:
        progress.note(note)
    own_activations(network)
    return network
