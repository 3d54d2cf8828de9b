"""Writing the report of a run."""

from __future__ import annotations

from pathlib import Path

from ...errors import RunFolderError
from ..run_folder import RunFolder, write_durably
from . import figures
from .page import Picture, build_page
from .results import Results, load_results
from .table import comparison_rows, write_tables

__all__ = ["write_report"]


def write_report(folder: Path | str) -> tuple[Path, Results]:
    """Write ``RUN/report``: page, picture and tables, from what the run's folder holds.

    Args:
        folder: A run, finished or not.

    Returns:
        The page's path, and what it shows.

    Raises:
        RunFolderError: If the folder is not a run, has no results yet, or cannot be written.
    """
    run = RunFolder.open(folder)
    results = load_results(run)
    with figures.style():
        drawn = {
            "accuracy_vs_flops": figures.accuracy_against_flops(results),
            "learning_curves": figures.learning_curves(results),
            "layer_widths": figures.layer_widths(results),
            "costs": figures.costs_over_iterations(results),
            "multipliers": figures.multipliers_over_iterations(results),
        }
        pictures = {
            name: Picture(figures.render(figure, "svg"), figures.ALT_TEXTS[name])
            for name, figure in drawn.items()
            if figure is not None
        }
        main = drawn["accuracy_vs_flops"]
        png = None if main is None else figures.render(main, "png")
    try:
        run.report.mkdir(exist_ok=True)
        if png is not None:
            write_durably(run.report / "accuracy_vs_flops.png", png)
        write_tables(comparison_rows(results), run.report)
        page = run.report / "index.html"
        write_durably(page, build_page(results, pictures).encode())
    except OSError as error:
        raise RunFolderError(
            f"The report in {run.report} cannot be written ({error.strerror or error}); make the "
            "run folder writable."
        ) from error
    return page, results
