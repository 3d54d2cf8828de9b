"""The quickstart: a packaged spec, small enough for two cores and a few minutes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files

from .spec.reading import SearchSpec, load_spec

__all__ = ["quickstart_spec"]


def quickstart_spec(overrides: Sequence[str] = ()) -> SearchSpec:
    """The comparison that ``prunetune quickstart`` runs: two rewards at two budgets on digits.

    Args:
        overrides: ``key.sub=value`` each.

    Raises:
        SpecError: If an override is wrong.
    """
    with as_file(files(__package__) / "quickstart.yaml") as path:
        return load_spec(path, overrides)
