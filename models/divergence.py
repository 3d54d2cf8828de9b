"""How far a network's predictions are from the dense network's, without labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["divergence"]


def divergence(outputs: Tensor, dense_outputs: Tensor, temperature: float = 1.0) -> Tensor:
    """``T^2 KL(softmax(dense / T) || softmax(outputs / T))`` of each image, nats, float64 [N].

    T^2 keeps its size when T changes (Hinton et al. 2015, section 2); for large T it tends to half
    the squared distance of the centred logits over their number.

    Args:
        outputs: Logits [N, classes].
        dense_outputs: The dense network's, [N, classes].
        temperature: T, positive.
    """
    candidate = functional.log_softmax(outputs.double() / temperature, dim=1)
    dense = functional.log_softmax(dense_outputs.double() / temperature, dim=1)
    each = functional.kl_div(candidate, dense, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * each
