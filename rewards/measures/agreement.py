"""How much a candidate's predictions differ from the dense network's, without labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import SpecError
from .measure import Batch
from .running_mean import RunningMean

__all__ = ["Agreement", "divergence", "mean_divergence"]


class Agreement(RunningMean):
    """Kullback-Leibler divergence KL(dense || candidate) of the class probabilities.

    Mean per image in nats, at least 0; 0 when both networks predict the same probabilities.

    Args:
        temperature: Softens both predictions, see :func:`divergence`. At 1 a few images on which a
            candidate is sure and wrong decide; at 4 all images count, and fewer are needed to tell
            candidates apart.

    Raises:
        SpecError: If the temperature is not positive.
    """

    name = "agreement"

    def __init__(self, temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise SpecError(f"The temperature of agreement is {temperature}; it must be positive.")
        super().__init__()
        self._temperature = temperature

    def per_image(self, batch: Batch) -> Tensor:
        """The divergence of each image, float64 [N]."""
        return divergence(batch.outputs, batch.dense_outputs, self._temperature)


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


@torch.no_grad()
def mean_divergence(
    network: nn.Module,
    dense: nn.Module,
    images: Tensor,
    temperature: float = 1.0,
    batch_size: int = 64,
) -> float:
    """Mean :func:`divergence` of a network from the dense one, both in evaluation mode.

    Args:
        network: The network.
        dense: The dense network, on the same device.
        images: float32 [N, C, H, W], at least one.
        temperature: As for :func:`divergence`.
        batch_size: Images a forward pass.
    """
    total = 0.0
    for batch in images.split(batch_size):
        ready = batch.contiguous(memory_format=torch.channels_last)
        total += float(divergence(network(ready), dense(ready), temperature).sum())
    return total / len(images)
