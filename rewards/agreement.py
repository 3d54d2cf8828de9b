"""How much a candidate's predictions differ from the dense network's, without labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from .measure import Batch
from .running_mean import RunningMean

__all__ = ["Agreement"]


class Agreement(RunningMean):
    """Kullback-Leibler divergence KL(dense || candidate) of the class probabilities.

    Mean per image in nats, at least 0; 0 when both networks predict the same probabilities.
    """

    name = "agreement"

    def per_image(self, batch: Batch) -> Tensor:
        """Sum over classes of ``p_dense * (log p_dense - log p_candidate)``."""
        candidate = functional.log_softmax(batch.outputs.double(), dim=1)
        dense = functional.log_softmax(batch.dense_outputs.double(), dim=1)
        return functional.kl_div(candidate, dense, reduction="none", log_target=True).sum(dim=1)
