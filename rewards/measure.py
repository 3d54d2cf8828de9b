"""What a measure is: a number computed from one pass of a candidate over the validation images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["Batch", "Measure"]


@dataclass(frozen=True)
class Batch:
    """What one forward pass produced.

    Attributes:
        outputs: The candidate's logits, float32 ``[N, classes]``.
        labels: True classes, int64 ``[N]``.
        dense_outputs: The dense network's logits on the same images, float32 ``[N, classes]``.
    """

    outputs: Tensor
    labels: Tensor
    dense_outputs: Tensor


class Measure(ABC):
    """One or more numbers gathered while a candidate runs over the validation images.

    The life of a measure: ``fit`` once on the dense network, then for each candidate ``attach``,
    ``update`` after every forward pass, ``compute``, ``detach``. Between candidates a measure is
    picklable. Batches come in one fixed order, the same for ``fit`` and for every candidate, and
    how the images are cut into batches does not change the result.

    Attributes:
        name: Kebab-case name, unique among measures.
    """

    name: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers that ``compute`` returns."""
        return (self.name,)

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

    def detach(self) -> None:  # noqa: B027
        """Leave no hook behind on the candidate; nothing by default."""
