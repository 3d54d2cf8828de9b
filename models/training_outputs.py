"""What a network gives in training: one output, or others beside it that only training has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import NetworkError

__all__ = ["auxiliary_weight", "only_layers_train", "training_outputs"]

# By the name of the tuple that torchvision's networks return in training.
_PUBLISHED = {
    "GoogLeNetOutputs": 0.3,  # Szegedy et al. 2014, "Going deeper with convolutions", section 5
    "InceptionOutputs": 0.4,  # torchvision's reference training of Inception v3
}


def auxiliary_weight(outputs: Any) -> float:
    """What the loss of each auxiliary output counts; 0 where nothing is published for them."""
    return _PUBLISHED.get(type(outputs).__name__.lstrip("_"), 0.0)


def training_outputs(outputs: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The output that is learned by, and the auxiliary ones.

    Args:
        outputs: What the network returned: a tensor; a sequence, whose first tensor it is; or a
            mapping, whose ``logits``, ``out`` or first tensor it is.

    Raises:
        NetworkError: If there is no tensor.
    """
    if isinstance(outputs, Tensor):
        return outputs, ()
    tensors = tuple(_tensors(outputs))
    if not tensors:
        raise NetworkError(
            f"In training the network returns a {type(outputs).__name__} without tensors; return "
            "the outputs first."
        )
    return tensors[0], tensors[1:]


def only_layers_train(network: nn.Module) -> None:
    """Put modules that hold others in evaluation mode, and leave the layers as they are.

    Branches that a network takes in training only, such as auxiliary heads, are then left out,
    while dropout and BatchNorm do what they do in training.
    """
    for module in network.modules():
        if any(True for _ in module.children()):
            module.training = False


def _tensors(outputs: Any) -> Iterator[Tensor]:
    values: Sequence[Any] = ()
    if isinstance(outputs, Mapping):
        first = [outputs[name] for name in ("logits", "out") if name in outputs]
        values = [*first[:1], *outputs.values()]
    elif isinstance(outputs, Sequence):
        values = outputs
    seen: set[int] = set()
    for value in values:
        if isinstance(value, Tensor) and id(value) not in seen:
            seen.add(id(value))
            yield value
