"""What ``pruning.json`` says, read as a stranger's: exact types and bounded sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...errors import NetworkError
from .files import DESCRIPTION, content_digest
from .forms import LayerForm

__all__ = ["FORMAT", "Claims", "Description", "LayerChannels", "check_bounds", "read_description"]

FORMAT = 2

# Bounds on what is claimed of a stranger's network, before it is built (our choice).
_MOST_CLASSES = 2**16
_MOST_VALUES = 2**22
_LONGEST_NAME = 1000

Name = Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME)]
Count = Annotated[int, Field(ge=1, le=2**31)]
Index = Annotated[int, Field(ge=0, le=2**31)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class NetworkName(_Part):
    """How the dense network is built.

    Attributes:
        model: A zoo name, ``torchvision:NAME``, ``timm:NAME``, the user's own
            ``file.py:function``, or ``live:NAME@DIGEST`` of a Python session.
        num_classes: Outputs of the network.
        input_shape: Channels, height and width of an image.
        groups: Which channel groups were decided.
    """

    model: Name
    num_classes: Count
    input_shape: Annotated[list[Count], Field(min_length=3, max_length=3)]
    groups: Literal["inner", "all"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        channels, height, width = self.input_shape
        return channels, height, width


class DecisionValue(_Part):
    """One decision: its kind, its value in the dense network, and the value that was chosen."""

    kind: Name
    size: Index
    value: Index


class LayerChannels(_Part):
    """The channels that a layer keeps, ascending; None where all of them stay."""

    outputs: Annotated[list[Index], Field(min_length=1)] | None
    inputs: Annotated[list[Index], Field(min_length=1)] | None


class Claims(_Part):
    """What artifacts of every format say.

    Attributes:
        network: How the dense network is built.
        kept: Units that were kept, ascending, by channel group.
        widths: How many these are.
        weights_sha256: Digest of the file of weights.
        provenance: Where the network comes from.
        measured: What was measured on it.
    """

    network: NetworkName
    kept: dict[Name, list[Index]]
    widths: dict[Name, Index]
    weights_sha256: Digest
    provenance: dict[str, Any]
    measured: dict[str, Any]

    @model_validator(mode="after")
    def _check_kept(self) -> Claims:
        if self.kept.keys() != self.widths.keys():
            raise ValueError("kept and widths are of other groups")
        for name, units in self.kept.items():
            if not _is_ascending(units) or not 0 < len(units) == self.widths[name]:
                raise ValueError(f"the units kept of {name!r} are not those of its width")
        return self


class Description(Claims):
    """What ``pruning.json`` says since format 2; it can be read without tracing a network.

    Attributes:
        format: 2.
        decisions: All decisions of the search space and what was chosen, by name.
        layers: Channels that are kept, by layer; others keep all.
        replaced: Layers that take the place of others, as merged ones do.
        outputs: Logits of the network on `probe_images`, one list an image.
        sha256: Digest of all the rest, and by ``weights_sha256`` of the weights.
    """

    format: Literal[2]
    decisions: dict[Name, DecisionValue]
    layers: dict[Name, LayerChannels]
    replaced: dict[Name, LayerForm]
    outputs: Annotated[list[list[float]], Field(min_length=1, max_length=16)]
    sha256: Digest

    @model_validator(mode="after")
    def _check_decisions(self) -> Description:
        for name, decision in self.decisions.items():
            if decision.value > decision.size:
                raise ValueError(f"the value of {name!r} is above its size")
            units = self.kept.get(name)
            if units is not None and (decision.value != len(units) or units[-1] >= decision.size):
                raise ValueError(f"the units kept of {name!r} are not those of its decision")
        if self.kept.keys() - self.decisions.keys():
            raise ValueError("units are kept of a group without a decision")
        for name, layer in self.layers.items():
            if not all(_is_ascending(side or [0]) for side in (layer.outputs, layer.inputs)):
                raise ValueError(f"the channels kept of {name!r} are not ascending")
        if any(len(row) != self.network.num_classes for row in self.outputs):
            raise ValueError("outputs are not one number a class")
        return self


class _FirstDescription(Claims):
    """What ``pruning.json`` says in format 1, which needs its network traced."""

    format: Literal[1]


def read_description(content: Mapping[str, Any], folder: Path) -> Claims:
    """The description of an artifact of any format, its digest compared.

    Args:
        content: What ``pruning.json`` holds.
        folder: The artifact, for messages.

    Returns:
        A `Description`, or `Claims` alone of an artifact of format 1.

    Raises:
        NetworkError: If it is of a later format, not what we write, or was changed.
    """
    path = folder / DESCRIPTION
    found = content.get("format")
    kinds: dict[int, type[Claims]] = {1: _FirstDescription, FORMAT: Description}
    kind = kinds.get(found) if type(found) is int else None
    if kind is None:
        raise NetworkError(
            f"{path} has format {str(found)[:20]!r}, this version reads formats 1 to {FORMAT}; "
            "use the prunetune that wrote it."
        )
    if kind is Description:
        rest = {key: value for key, value in content.items() if key != "sha256"}
        if content.get("sha256") != content_digest(rest):
            raise NetworkError(
                f"{path} was changed after it was written: its sha256 is of another content; "
                "copy the artifact again from where it was written."
            )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join(str(part)[:_LONGEST_NAME] for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
        raise NetworkError(
            f"The artifact {folder} does not describe its network"
            f"{f' ({key!r})' if key else ''}: {reason}; write it again."
        ) from None


def check_bounds(network: NetworkName, folder: Path) -> None:
    """Refuse sizes that a stranger's artifact could fill the memory with.

    Raises:
        NetworkError: If there are too many classes, or an image is too large.
    """
    values = math.prod(network.shape)
    if network.num_classes > _MOST_CLASSES or values > _MOST_VALUES:
        raise NetworkError(
            f"The artifact {folder} claims {network.num_classes:,} classes and images of "
            f"{'x'.join(map(str, network.shape))}, more than the {_MOST_CLASSES:,} classes and "
            f"{_MOST_VALUES:,} values that are read of a stranger's; if it is yours, say "
            "trust=True (--trust)."
        )


def _is_ascending(indices: list[int]) -> bool:
    return all(low < high for low, high in itertools.pairwise(indices))
