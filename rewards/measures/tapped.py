"""The common case of a measure that listens inside the network: hooks that always come off."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ...errors import EvaluationError, MeasureError
from .measure import Batch, Measure
from .taps import Tap

__all__ = ["TappedMeasure"]


class TappedMeasure(Measure):
    """A measure that hears what modules read or return while a forward pass runs.

    A subclass says in `find_sites` where it listens, in `learn` what it wants to know of the dense
    network, and in `hear` what it does with a candidate's tensors.
    """

    _sites: tuple[tuple[str, ...], bool] | None = None
    _tap: Tap | None = None

    @abstractmethod
    def find_sites(self, network: nn.Module) -> tuple[tuple[str, ...], bool]:
        """Where to listen.

        Args:
            network: The dense network.

        Returns:
            Names of modules, and whether to hear their inputs instead of their outputs.
        """

    @abstractmethod
    def hear(self, site: str, tensor: Tensor) -> None:
        """Take in a tensor of a candidate; `Tap` says what a site is."""

    def learn(self, network: nn.Module, batches: Iterable[Tensor]) -> None:
        """Learn what is needed of the dense network; nothing by default. See `Measure.fit`."""

    def fit(self, network: nn.Module, batches: Iterable[Tensor]) -> None:
        """Note where to listen, and learn of the dense network; see :class:`Measure`.

        Raises:
            MeasureError: If the dense network has no module to listen to.
        """
        names, inputs = self.find_sites(network)
        if not names:
            raise MeasureError(
                self.name, "it has no rectifier, normalisation or convolution as a module"
            )
        self._sites = names, inputs
        try:
            with torch.inference_mode():
                self.learn(network, batches)
        finally:
            self.detach()
            self.reset()

    def attach(self, network: nn.Module) -> None:
        """Listen to a candidate; see :class:`Measure`.

        Raises:
            EvaluationError: If ``fit`` was not called.
        """
        self.reset()
        self.listen(network, self.hear)

    def listen(self, network: nn.Module, hear: Callable[[str, Tensor], None]) -> None:
        """Begin to hear a network, and nothing else.

        Args:
            network: The dense network or a candidate.
            hear: Receives every site with its tensor.

        Raises:
            EvaluationError: If ``fit`` was not called.
        """
        if self._sites is None:
            raise EvaluationError(
                f"The measure {self.name!r} must be fitted on the dense network before it is "
                "attached to a candidate."
            )
        self.detach()
        names, inputs = self._sites
        self._tap = Tap(network, names, inputs, hear)

    def update(self, batch: Batch) -> None:
        """Get ready for the next forward pass; all listening happened during this one."""
        self.next_pass()

    def next_pass(self) -> None:
        """Count the calls of modules from one again."""
        if self._tap is not None:
            self._tap.next_pass()

    def detach(self) -> None:
        """Leave no hook behind."""
        if self._tap is not None:
            self._tap.remove()
            self._tap = None
