"""How far the features that a candidate classifies by are from the dense network's."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ...errors import EvaluationError, MeasureError
from .measure import Batch
from .tapped import TappedMeasure

__all__ = ["FeatureDistance", "linear_cka"]


def linear_cka(cross: Tensor, first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of two sets of features of the same images.

    ``|X'Y|^2 / (|X'X| |Y'Y|)`` with centred columns and Frobenius norms (Kornblith et al. 2019,
    arXiv 1905.00414, eq. 4 with linear kernels).

    Args:
        cross: ``X'Y``, ``[p, q]``.
        first: ``X'X``, ``[p, p]``.
        second: ``Y'Y``, ``[q, q]``.

    Returns:
        Similarity in [0, 1]; 0 when one of the sets is constant.
    """
    scale = float(first.norm() * second.norm())
    return min(1.0, float(cross.square().sum()) / scale) if scale > 0 else 0.0


class FeatureDistance(TappedMeasure):
    """One minus the linear CKA between a candidate's and the dense network's features, in [0, 1].

    Features are the input of the last linear layer (of the last convolution in a network without
    one), averaged over positions if it is a map. They are compared by CKA because a candidate may
    have fewer features than the dense network, which an L2 distance cannot compare. Images must
    come in the order in which ``fit`` saw them. Where they are sampled, the three products are
    unbiased estimates up to a common factor, and the distance is what they give.
    """

    name = "feature-distance"

    def __init__(self) -> None:
        self._dense = torch.empty(0)
        self._features: Tensor | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the last candidate's features."""
        self._candidate: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._features = None

    def find_sites(self, network: nn.Module) -> tuple[tuple[str, ...], bool]:
        """The input of the layer that classifies; see :class:`TappedMeasure`."""
        for kind in (nn.Linear, nn.Conv2d):
            names = [name for name, module in network.named_modules() if isinstance(module, kind)]
            if names:
                return (names[-1],), True
        raise MeasureError(
            self.name, "it has no linear layer or convolution whose features could be compared"
        )

    def learn(self, network: nn.Module, batches: Iterable[Tensor]) -> None:
        """Store the dense network's features of all validation images, float32."""
        self.listen(network, self.hear)
        parts = []
        for images in batches:
            network(images)
            parts.append(self._take())
        self._dense = torch.cat(parts)

    def update(self, batch: Batch) -> None:
        """Take in the features of the pass that just ended."""
        self._candidate.append(self._take())
        self._weights.append(batch.weights.float())
        self.next_pass()

    def compute(self) -> dict[str, float]:
        """The distance over all images so far; not-a-number when there were none.

        Raises:
            EvaluationError: If more images came than ``fit`` saw.
        """
        if not self._candidate:
            return {self.name: math.nan}
        candidate = torch.cat(self._candidate)
        if len(candidate) > len(self._dense):
            raise EvaluationError(
                f"The measure {self.name!r} was fitted on {len(self._dense)} images but a "
                f"candidate was run on {len(candidate)}; fit it on the same validation images."
            )
        # Centring before multiplying keeps the products small enough for single precision.
        weights = torch.cat(self._weights)[:, None]
        dense = _centred(self._dense[: len(candidate)], weights)
        candidate = _centred(candidate, weights)
        similarity = linear_cka(dense.T @ candidate, dense.T @ dense, candidate.T @ candidate)
        return {self.name: 1.0 - similarity}

    def hear(self, site: str, tensor: Tensor) -> None:
        """Keep the features of this pass; see :class:`TappedMeasure`."""
        features = tensor.float()
        self._features = features.flatten(2).mean(dim=2) if features.ndim > 2 else features.clone()

    def _take(self) -> Tensor:
        features, self._features = self._features, None
        if features is None:
            raise MeasureError(
                self.name, "the layer that should classify, its last one, is never called"
            )
        return features


def _centred(features: Tensor, weights: Tensor) -> Tensor:
    """Features less their weighted mean, scaled so that products of them are weighted sums."""
    mean = (features * weights).sum(dim=0) / weights.sum()
    return (features - mean) * weights.sqrt()
