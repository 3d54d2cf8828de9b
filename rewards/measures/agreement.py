"""How much a candidate's predictions differ from the dense network's, without labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import SpecError
from ...models.divergence import divergence
from ...models.layout import layout_of
from .measure import Batch
from .running_mean import RunningMean

__all__ = ["Agreement", "mean_divergence"]


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
    layout = layout_of(dense, images)
    for batch in images.split(batch_size):
        ready = batch.contiguous(memory_format=layout)
        total += float(divergence(network(ready), dense(ready), temperature).sum())
    return total / len(images)
