"""Verifying an artifact: recount what it claims, and measure its accuracy where there is data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from ...errors import DataError, NetworkError, PruneTuneError
from ..calls import count_flops
from ..data import DataSpec, load_data
from ..training import accuracy
from .dense import Reader, blank_dense, dense_network
from .description import Claims, NetworkName
from .loading import read_artifact
from .saving import count_params

__all__ = ["verify_artifact"]

# Ties that another processor breaks in another way; an image or two of a small set.
_ACCURACY_TOLERANCE, _IMAGES_TOLERANCE = 0.005, 1.5
_EMBEDDED = "digits"


def verify_artifact(
    folder: Path,
    network: nn.Module | None = None,
    *,
    model: str | None = None,
    trust: bool = False,
    data: DataSpec | str | None = None,
) -> dict[str, Any]:
    """Rebuild an artifact and recount everything it claims about its size and its accuracy.

    Its outputs are compared with those of the network that was written when it is rebuilt.

    Args:
        folder: An artifact's folder.
        network: As for `load_artifact`.
        model: As for `load_artifact`.
        trust: As for `load_artifact`.
        data: The data whose test images the accuracy is measured on anew. No data is looked for
            that only the artifact names, but digits, which comes with a package.

    Returns:
        ``flops`` and ``params`` as fractions of the dense network's and absolute, the budgets and
        the widths, ``test_accuracy`` (None where it was not measured anew), and the network's
        measured numbers.

    Raises:
        PruneTuneError: If the artifact is broken, its numbers do not agree with its network, or the
            network is over a budget that the artifact claims to keep.
    """
    reader = Reader(network, model, trust)
    artifact, claims = read_artifact(folder, reader)
    claimed, budgets = _numbers(folder, claims)
    example = torch.zeros(1, *claims.network.shape)
    counts = {
        "flops": count_flops(artifact.network, example),
        "params": count_params(artifact.network),
    }
    for name, counted in counts.items():
        if claimed[name] != counted:
            raise NetworkError(
                f"The artifact {folder} claims {claimed[name]} {name} and its network has "
                f"{counted}; it was changed after it was written."
            )
    dense = _dense_counts(folder, claims.network, reader)
    fractions = {name: counts[name] / dense[name] for name in counts}
    for name, limit in budgets.items():
        if name in fractions and fractions[name] > limit:
            raise PruneTuneError(
                f"The artifact {folder} needs {fractions[name]:.4f} of the dense network's {name}, "
                f"more than its budget of {limit}."
            )
    return {
        "flops": counts["flops"],
        "flops_fraction": fractions["flops"],
        "params": counts["params"],
        "params_fraction": fractions["params"],
        "budgets": budgets,
        "widths": claims.widths,
        "test_accuracy": _test_accuracy(folder, artifact.network, claims, data),
        "measured": claims.measured,
    }


def _numbers(folder: Path, claims: Claims) -> tuple[dict[str, int], dict[str, float]]:
    """The FLOPs and parameters that an artifact claims to have, and the limits that it keeps."""
    try:
        claimed = {name: int(claims.measured[name]) for name in ("flops", "params")}
        budgets = {
            str(name): float(limit) for name, limit in claims.provenance.get("budgets", {}).items()
        }
        if not all(math.isfinite(limit) for limit in budgets.values()):
            raise ValueError("a budget is not finite")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise NetworkError(
            f"The artifact {folder} does not say what was measured on it ({type(error).__name__}: "
            f"{error}); write it again."
        ) from error
    return claimed, budgets


def _dense_counts(folder: Path, named: NetworkName, reader: Reader) -> dict[str, int]:
    """FLOPs and parameters of the dense network, which needs no values for them."""
    dense = blank_dense(named, reader)
    if dense is None:
        dense = dense_network(folder, named, reader)
    device = next(dense.parameters()).device
    flops = count_flops(dense, torch.zeros(1, *named.shape, device=device))
    return {"flops": max(1, flops), "params": max(1, count_params(dense))}


def _test_accuracy(
    folder: Path, network: nn.Module, claims: Claims, data: DataSpec | str | None
) -> float | None:
    """Accuracy on the test images, compared with the claim; None where there is nothing to do."""
    claimed = claims.measured.get("test_after")
    spec = _data_spec(folder, claims, data)
    if spec is None:
        return None
    source = load_data(spec)
    if (source.input_shape, source.num_classes) != (
        claims.network.shape,
        claims.network.num_classes,
    ):
        raise DataError(
            f"The artifact {folder} is of images {list(claims.network.shape)} in "
            f"{claims.network.num_classes} classes, and {source.name!r} has "
            f"{list(source.input_shape)} in {source.num_classes}; give the data that it is of."
        )
    images = source.labelled(source.test)
    with torch.inference_mode():
        found = accuracy(network, images)
    tolerance = max(_ACCURACY_TOLERANCE, _IMAGES_TOLERANCE / len(images))
    if isinstance(claimed, float | int) and abs(found - claimed) > tolerance:
        raise NetworkError(
            f"The artifact {folder} claims a test accuracy of {claimed:.4f}, and its network has "
            f"{found:.4f} on the {len(images)} test images of {source.name!r}; if these are the "
            "images that it is of, it was changed after it was measured."
        )
    return found


def _data_spec(folder: Path, claims: Claims, data: DataSpec | str | None) -> DataSpec | None:
    """The data that was given, prepared as the artifact's was; or what needs no files."""
    said = claims.provenance.get("data")
    try:
        recorded = DataSpec.model_validate(said) if said is not None else None
        given = DataSpec.model_validate(data) if data is not None else None
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise DataError(
            f"The data of the artifact {folder} is not described rightly: {reason}; give a name "
            "such as digits, or parquet:DIR."
        ) from None
    if given is None:
        return recorded if recorded is not None and recorded.name == _EMBEDDED else None
    if recorded is None:
        return given
    where = {key: getattr(given, key) for key in given.model_fields_set}
    return recorded.model_copy(update={**where, "download": False})
