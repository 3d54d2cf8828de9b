"""Errors that reach the user as one clear sentence and exit code 2."""

from __future__ import annotations

__all__ = [
    "BudgetError",
    "ClusterError",
    "DataError",
    "EvaluationError",
    "MeasureError",
    "NetworkError",
    "PluginError",
    "PruneTuneError",
    "RunFolderError",
    "SpecError",
    "UnknownNameError",
    "WeightsError",
]


class PruneTuneError(Exception):
    """Root of every error caused by what the user gave; its message says what to change."""


class SpecError(PruneTuneError):
    """A spec that cannot be read or does not describe a search."""


class PluginError(PruneTuneError):
    """A user's own object (``module:Name`` or ``file.py:Name``) that cannot be used."""


class UnknownNameError(PruneTuneError):
    """A name that is not one of ours; the message suggests the nearest one."""


class DataError(PruneTuneError):
    """A data set that is missing, empty, corrupt or does not fit the network."""


class NetworkError(PruneTuneError):
    """A network that cannot be built, traced, run or slimmed."""


class WeightsError(PruneTuneError):
    """A weights file that cannot be read or belongs to another architecture."""


class BudgetError(PruneTuneError):
    """A budget that is malformed or that no candidate can reach."""


class EvaluationError(PruneTuneError):
    """A measure, reward or cost that raised or returned something that is not a number."""


class MeasureError(EvaluationError, NetworkError):
    """A measure that finds nothing in a network that it could be computed from.

    Attributes:
        measure: Its name.
        reason: What the network lacks.
        remedy: What to change.
    """

    def __init__(self, measure: str, reason: str, remedy: str = "leave it out") -> None:
        super().__init__(measure, reason, remedy)
        self.measure, self.reason, self.remedy = measure, reason, remedy

    def __str__(self) -> str:
        return (
            f"The measure {self.measure!r} does not apply to this network, because {self.reason}; "
            f"{self.remedy}."
        )


class RunFolderError(PruneTuneError):
    """A run folder that exists already, is not one of ours, or cannot be written."""


class ClusterError(PruneTuneError):
    """A Ray cluster, actor or resource that cannot be had."""
