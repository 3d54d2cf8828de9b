"""First-order Taylor expansion of the loss in a unit's activations."""

from __future__ import annotations

from itertools import takewhile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..groups import ChannelGroup
from ..hooks import hear_calls
from ..layers import adapter_of
from .criterion import Evidence, ScoreCriterion

__all__ = ["Taylor"]


class Taylor(ScoreCriterion):
    """Mean over images of |sum over positions of activation x gradient|.

    Molchanov et al. 2017, arXiv 1611.06440, equation 8, at the outputs of the last layer that the
    group runs through before it is read for the first time. The loss is the cross-entropy to the
    dense network's own most likely class (our choice: no labels are used).

    Args:
        images: Calibration images to differentiate over.
        batch_size: Images per backward pass.
    """

    name = "taylor"

    def __init__(self, images: int = 256, batch_size: int = 64) -> None:
        self._images = images
        self._batch_size = batch_size

    def scores(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.float64]:
        """Sum of the channels of each unit."""
        before_reading = takewhile(lambda member: member.axis == "out", group.members)
        *_, member = before_reading
        images = evidence.images[: self._images]
        total: Tensor | None = None
        for batch in images.split(self._batch_size):
            contribution = self._batch_scores(evidence.network, member.layer, batch)
            total = contribution if total is None else total + contribution
        assert total is not None
        return (total / len(images))[torch.from_numpy(member.channels)].sum(dim=1).numpy()

    def _batch_scores(self, network: nn.Module, layer: str, images: Tensor) -> Tensor:
        outputs: list[Tensor] = []

        def keep(module: nn.Module, inputs: Tensor, output: Tensor) -> Tensor:
            # The network's weights need no gradient, so the graph starts here.
            detached = output.detach().requires_grad_()
            outputs.append(detached)
            # What follows may work in place, which a leaf of the graph does not allow.
            return detached.clone()

        handle = hear_calls(network.get_submodule(layer), keep)
        try:
            with torch.enable_grad():
                logits = network(images)
                loss = functional.cross_entropy(
                    logits, logits.detach().argmax(dim=1), reduction="sum"
                )
                (gradient,) = torch.autograd.grad(loss, outputs[-1])
        finally:
            handle.remove()
        product = (outputs[-1].detach() * gradient).double()
        adapter = adapter_of(network.get_submodule(layer))
        assert adapter is not None
        product = product.movedim(adapter.channel_axis, 1)
        return product.reshape(*product.shape[:2], -1).sum(dim=2).abs().sum(dim=0)
