"""What a measure is: a number computed from one pass of a candidate over the validation images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..evaluation.sampling import Sample

__all__ = ["Batch", "Measure"]


@dataclass(frozen=True)
class Batch:
    """What one forward pass produced.

    Attributes:
        outputs: The candidate's logits, float32 ``[N, classes]``.
        labels: True classes, int64 ``[N]``.
        dense_outputs: The dense network's logits on the same images, float32 ``[N, classes]``.
        sample: How these images were drawn; None where all validation images are evaluated.
    """

    outputs: Tensor
    labels: Tensor
    dense_outputs: Tensor
    sample: Sample | None = None

    @property
    def weights(self) -> Tensor:
        """How many validation images each image stands for, float64 ``[N]``."""
        if self.sample is None:
            return torch.ones(len(self.outputs), dtype=torch.float64, device=self.outputs.device)
        return torch.from_numpy(self.sample.weights).to(self.outputs.device)


class Measure(ABC):
    """One or more numbers gathered while a candidate runs over the validation images.

    The life of a measure: ``fit`` once on the dense network, then for each candidate ``attach``,
    ``update`` after every forward pass, ``compute``, ``detach``. Between candidates a measure is
    picklable. Batches come in one fixed order, the same for ``fit`` and for every candidate, and
    how the images are cut into batches does not change the result.

    Where candidates are evaluated on a sample of the validation images, ``fit`` is called again,
    with that sample. A measure of all images then weighs each by ``Batch.weights``; a measure of
    the first images says in ``leading`` how many they are, and sees them whatever is drawn.

    Attributes:
        name: Kebab-case name, unique among measures.
    """

    name: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers that ``compute`` returns."""
        return (self.name,)

    @property
    def leading(self) -> int:
        """How many of the first validation images it looks at; 0 for a measure of all images."""
        return 0

    def fit(self, network: nn.Module, batches: Iterable[Tensor]) -> None:  # noqa: B027
        """Learn what is needed of the dense network; nothing by default.

        Args:
            network: The dense network in evaluation mode, in the precision that candidates get.
            batches: The validation images in evaluation order, ``[N, C, H, W]`` each, ready to be
                given to ``network``. A measure may stop reading early.
        """

    def attach(self, network: nn.Module) -> None:
        """Start on a new candidate: forget the last one and register hooks if any are needed.

        Args:
            network: A candidate; module names are those of the dense network, channel counts may
                be smaller.
        """
        self.reset()

    @abstractmethod
    def reset(self) -> None:
        """Forget everything gathered since ``fit``."""

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Take in one batch, right after its forward pass."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The numbers of everything taken in since ``attach``, one for each of ``columns``."""

    def standard_errors(self) -> dict[str, float]:
        """By column, the standard error that comes from evaluating a sample of the images.

        Of everything taken in since ``attach``; none by default, and none where all images are
        evaluated.
        """
        return {}

    def detach(self) -> None:  # noqa: B027
        """Leave no hook behind on the candidate; nothing by default."""
