"""Which measures apply to a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..._registry import NamedSpec
from ...errors import MeasureError
from ...models.progress import SILENT, Progress
from ...models.task import PruningTask
from ..registry import DEFAULT_MEASURES, make_measures

__all__ = ["applicable_measures"]

_IMAGES = 2


def applicable_measures(
    measures: Sequence[NamedSpec],
    task: PruningTask,
    needed: Mapping[str, str],
    progress: Progress = SILENT,
) -> tuple[NamedSpec, ...]:
    """Leave out measures that nobody asked for and that find nothing in a network.

    Measures that a user listed are all kept.

    Args:
        measures: What is asked to be computed.
        task: The task.
        needed: The reward that reads a column, by the column's name.
        progress: Receives a note of every measure that is left out, and why.

    Returns:
        Those that are computed, in order.

    Raises:
        MeasureError: If a reward reads a measure that does not apply.
    """
    if tuple(measures) != DEFAULT_MEASURES:
        return tuple(measures)
    kept = []
    for spec, measure in zip(measures, make_measures(measures), strict=True):
        try:
            measure.fit(task.network, [task.validation.images[:_IMAGES]])
        except MeasureError as error:
            readers = [needed[column] for column in measure.columns if column in needed]
            if readers:
                remedy = f"take another reward than {readers[0]!r}, which reads it"
                raise MeasureError(measure.name, error.reason, remedy) from None
            progress.warn(f"The measure {measure.name!r} is left out, because {error.reason}.")
            continue
        kept.append(spec)
    return tuple(kept)
