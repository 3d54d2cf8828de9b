"""Copies of networks that share what does not change, with every reference to what does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

from torch import nn

__all__ = ["Replace", "shallow_copy"]

Replace = Callable[[str, nn.Module], nn.Module | None]
"""Given a qualified name and a module, its replacement, or None to look inside."""

# What every module has; none of it refers to another module as a part.
_OF_ALL_MODULES = frozenset(vars(nn.Module()))


def shallow_copy(network: nn.Module, replace: Replace) -> nn.Module:
    """A module tree that shares everything with ``network`` but what ``replace`` returns anew.

    A module that the network knows under several names, or keeps in a plain list, or of which it
    keeps a method, is replaced wherever it is known.

    Args:
        network: The root, which is always copied; it is not changed.
        replace: Asked once for every module, by the first of its names; for the root by "". A
            replacement that has the very children of what it replaces is looked into as well.
    """
    copies: dict[int, nn.Module] = {}
    duplicate = replace("", network) or copy.copy(network)
    _open(network, duplicate, replace, "", copies)
    for each in {id(module): module for module in copies.values()}.values():
        for name, value in _links(each).items():
            vars(each)[name] = _followed(value, copies)
    return duplicate


def _open(
    module: nn.Module,
    duplicate: nn.Module,
    replace: Replace,
    prefix: str,
    copies: dict[int, nn.Module],
) -> None:
    """Put copies in place of the children of a duplicate, and learn what became of each module."""
    copies[id(module)] = duplicate
    if duplicate._modules is not module._modules:
        return
    duplicate._modules = dict(module._modules)
    for name, child in module._modules.items():
        if child is None:
            continue
        if id(child) not in copies:
            own = replace(prefix + name, child)
            if own is None:
                own = copy.copy(child) if child._modules or _links(child) else child
            if own is child:
                copies[id(child)] = child
            else:
                _open(child, own, replace, f"{prefix}{name}.", copies)
        duplicate._modules[name] = copies[id(child)]


def _links(module: nn.Module) -> dict[str, Any]:
    """Attributes that refer to modules otherwise than as parts, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if name not in _OF_ALL_MODULES and _refers(value)
    }


def _refers(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_refers, value))
    if isinstance(value, dict):
        return any(map(_refers, value.values()))
    if isinstance(value, MethodType):
        return _refers(value.__self__)
    if isinstance(value, partial):
        return _refers((value.func, value.args, value.keywords))
    return isinstance(value, nn.Module)


def _followed(value: Any, copies: dict[int, nn.Module]) -> Any:
    """The same value with references to the modules that took others' places."""
    if not _refers(value):
        return value
    if isinstance(value, nn.Module):
        return copies.get(id(value), value)
    if isinstance(value, MethodType):
        return MethodType(value.__func__, _followed(value.__self__, copies))
    if isinstance(value, partial):
        keywords = _followed(value.keywords, copies)
        return partial(_followed(value.func, copies), *_followed(value.args, copies), **keywords)
    duplicate = copy.copy(value)
    if isinstance(value, dict):
        duplicate.update({key: _followed(each, copies) for key, each in value.items()})
        return duplicate
    followed = [_followed(each, copies) for each in value]
    return type(value)(*followed) if hasattr(value, "_fields") else type(value)(followed)
