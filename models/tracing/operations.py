"""How an operation carries the labels of what it reads to what it writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .labels import FIXED, Findings, fixed_like, varies

__all__ = ["Labelled", "carry", "tensors_in"]

Labelled = Callable[[Tensor], Tensor | None]
"""The labels of a tensor, or None where it does not depend on the images."""

# They move values and compute none, so that the operation itself can be applied to labels.
_MOVES = frozenset(
    "alias as_strided cat channel_shuffle chunk constant_pad_nd detach diagonal expand expand_as "
    "flatten flip index index_select lift_fresh movedim narrow native_channel_shuffle permute "
    "pixel_shuffle pixel_unshuffle repeat repeat_interleave reshape _reshape_alias roll rot90 "
    "select select_scatter slice slice_scatter split split_with_sizes squeeze stack swapaxes t "
    "transpose unbind unfold unsafe_split unsafe_split_with_sizes unsqueeze _unsafe_view view "
    "view_as".split()
)
# Of those, the ones that put several tensors together; the others read one, and indices.
_JOINS = frozenset("cat select_scatter slice_scatter stack".split())
# Each value comes from the values at its own place, besides what PyTorch says so of.
_POINTWISE = frozenset(
    "bernoulli clone contiguous copy dropout empty_like fill full_like hardswish native_dropout "
    "ones_like _prelu_kernel rand_like randn_like to _to_copy tril triu zero zeros_like".split()
)
_CREATES = frozenset("new_empty new_full new_ones new_zeros".split())
# One channel scales another. Whatever else combines two of them counts as adding.
_SCALES = frozenset("div mul".split())
_REDUCES = frozenset(
    "all amax amin any argmax argmin count_nonzero linalg_vector_norm logsumexp max mean median "
    "min norm nansum prod std std_mean sum var var_mean".split()
)
# Their result says something of all channels and is no number that a layer reads.
_ASKS = frozenset("all any".split())
# Each value depends on all that are on one line with it.
_ALONG = frozenset("cumprod cumsum log_softmax _log_softmax softmax _softmax sort".split())
# Each value comes from the map of its own channel.
_MAPS = re.compile(
    r"_?(?:(?:adaptive_)?(?:avg|max)_pool|upsample_[a-z]+|reflection_pad|replication_pad)(\d)d"
)


def carry(
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Any,
    labelled: Labelled,
    findings: Findings,
    unknown: str,
) -> Any:
    """The labels of what an operation wrote.

    Args:
        func: The operation, an overload of ``torch.ops.aten``.
        args: What it was called with.
        kwargs: Likewise.
        result: What it returned: a tensor, or several.
        labelled: Gives the labels of a tensor.
        findings: Takes what the operation says of labels.
        unknown: The reason to fix labels where the operation is not known.

    Returns:
        Labels for each tensor of ``result``, in the same nesting; None where there are none. An
        operation that is not known writes labels that are fixed, and fixes those that it reads.
    """
    packet = func._schema.name.removeprefix("aten::")
    in_place = packet.endswith("_") and not packet.startswith("__")
    name = packet.rstrip("_") if in_place else packet
    bound = _bound(func, args, kwargs)
    read = [each for each in tensors_in((args, kwargs)) if labelled(each) is not None]
    if name in _MOVES and {id(each) for each in read} <= _data(name, args):
        return _move(func, name, args, kwargs, labelled)
    if name in _CREATES and result.shape == args[0].shape:
        return _known(args[0], labelled).clone()
    if name in _CREATES:
        return None
    if name == "index_put" and len(read) <= 2 and not bound.get("accumulate"):
        return _put(func, args, labelled, findings)
    if torch.Tag.pointwise in func.tags or name in _POINTWISE:
        # What is copied over another tensor has nothing to do with what was there.
        sources = tensors_in((args[1:] if name == "copy" else args, kwargs))
        found = _combine(name, sources, tensors_in(result)[0], labelled, findings)
        if not in_place:
            return found if isinstance(result, Tensor) else type(result)([found] * len(result))
        own = labelled(args[0])
        if own is None:  # what is written into was of a fixed size
            findings.fix(found, "it is written into a tensor of fixed size")
            return None
        return own.copy_(found)
    if name in _REDUCES or name in _ALONG:
        return _reduce(name, bound, args[0], result, labelled, findings)
    on_maps = _MAPS.match(name)
    if on_maps and labelled(args[0]) is not None:
        return _spread(name, int(on_maps[1]), args[0], result, labelled, findings)
    for each in read:
        findings.fix(_known(each, labelled), unknown)
    return _each(result, fixed_like)


def _move(
    func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], labelled: Labelled
) -> Any:
    data = _data(name, args)

    def swap(value: Any) -> Any:
        if isinstance(value, Tensor):
            return _known(value, labelled) if id(value) in data else value
        if isinstance(value, list | tuple):
            return type(value)(swap(each) for each in value)
        return value

    swapped = [swap(each) for each in args]
    if name == "constant_pad_nd":
        swapped = [*swapped[:2], FIXED]
        kwargs = {}
    return func(*swapped, **kwargs)


def _put(func: Any, args: tuple[Any, ...], labelled: Labelled, findings: Findings) -> Tensor | None:
    """Labels of a tensor of which some values are replaced by others."""
    into, indices, values = args[:3]
    own = labelled(into)
    if own is None or any(labelled(each) is not None for each in tensors_in(indices)):
        for each in tensors_in(args):
            findings.fix(_known(each, labelled), "it is written into a tensor of fixed size")
        return None if own is None else own.fill_(FIXED)
    written: Tensor = func(own, indices, _known(values, labelled))
    return written


def _combine(
    name: str,
    tensors: Sequence[Tensor],
    result: Tensor,
    labelled: Labelled,
    findings: Findings,
) -> Tensor:
    """Labels where values at the same place are combined, with broadcasting."""
    shape = result.shape
    parts = []
    for each in tensors:
        labels = labelled(each)
        if labels is not None:
            parts.append(labels[(None,) * (len(shape) - labels.dim())])
    channels = {dim for each in parts for dim in range(len(shape)) if varies(each, dim)}
    merged: Tensor | None = None
    for labels in parts:
        if any(labels.shape[dim] == 1 and shape[dim] > 1 for dim in channels):
            # One channel for all of the others', which it survives.
            findings.fix(labels, "all channels of other layers are combined with each of it")
            continue
        labels = labels.expand(shape)
        if merged is None:
            merged = labels
        else:
            findings.tie(merged, labels, adds=name not in _SCALES)
    found = fixed_like(result)
    if merged is None:
        return found
    for each in tensors:
        sizes = (1,) * (len(shape) - each.dim()) + tuple(each.shape)
        if labelled(each) is None and any(sizes[dim] == shape[dim] for dim in channels):
            findings.fix(merged, "it is combined with a tensor of fixed size")
    return found.copy_(merged)


def _reduce(
    name: str,
    bound: dict[str, Any],
    source: Tensor,
    result: Any,
    labelled: Labelled,
    findings: Findings,
) -> Any:
    labels = _known(source, labelled)
    dims = bound.get("dim", -1 if name == "sort" else None)
    dims = list(range(source.dim())) if dims is None or dims == [] else dims
    dims = [dim % source.dim() for dim in ([dims] if isinstance(dims, int) else dims)]
    if name in _ASKS:
        return _each(result, fixed_like)
    if any(varies(labels, dim) for dim in dims):
        findings.fix(labels, f"the network applies {name.lstrip('_')} across its channels")
        return _each(result, fixed_like)
    if name in _ALONG:
        return _each(result, lambda each: fixed_like(each).copy_(labels))
    for dim in sorted(dims, reverse=True):
        labels = labels.narrow(dim, 0, 1)
        labels = labels if bound.get("keepdim") else labels.squeeze(dim)
    return _each(result, lambda each: fixed_like(each).copy_(labels))


def _spread(
    name: str,
    dims: int,
    source: Tensor,
    result: Any,
    labelled: Labelled,
    findings: Findings,
) -> Any:
    """Labels of maps that are made from maps, channel by channel."""
    labels = _known(source, labelled)
    if any(varies(labels, dim) for dim in range(source.dim() - dims, source.dim())):
        findings.fix(labels, f"the network applies {name.lstrip('_')} across its channels")
        return _each(result, fixed_like)
    corner = labels.flatten(source.dim() - dims)[..., :1]
    corner = corner.reshape(*corner.shape, *(1,) * (dims - 1))
    return _each(result, lambda each: fixed_like(each).copy_(corner))


def _bound(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = [argument.name for argument in func._schema.arguments]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _data(name: str, args: tuple[Any, ...]) -> set[int]:
    """Which arguments of a move hold values, by identity; the others are places."""
    return {id(each) for each in (tensors_in(args) if name in _JOINS else args[:1])}


def _known(values: Tensor, labelled: Labelled) -> Tensor:
    labels = labelled(values)
    return fixed_like(values) if labels is None else labels


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors in arguments or results, which may be nested."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [tensor for each in values for tensor in tensors_in(each)]


def _each(result: Any, make: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(result, Tensor):
        return make(result)
    if isinstance(result, list | tuple):
        return [_each(each, make) for each in result]
    return None
