"""Writing the report of a run."""

from __future__ import annotations

from pathlib import Path

from ...errors import RunFolderError
from ..run.files import write_durably
from ..run.folder import RunFolder
from . import curves, figures
from .drawing import render, style
from .fidelity import reward_fidelities
from .page import Picture, build_page
from .results import Results, load_results
from .table import comparison_rows, write_fidelities, write_tables

__all__ = ["write_report"]


def write_report(folder: Path | str) -> tuple[Path, Results]:
    """Write ``RUN/report``: page, pictures and tables, from what the run's folder holds.

    Args:
        folder: A run, finished or not.

    Returns:
        The page's path, and what it shows.

    Raises:
        RunFolderError: If the folder is not a run, has no results yet, or cannot be written.
    """
    run = RunFolder.open(folder)
    results = load_results(run)
    if run.report.is_symlink():
        raise RunFolderError(
            f"The report {run.report} is a link to somewhere else; remove the link."
        )
    with style():
        drawn = {
            "accuracy_vs_flops": figures.accuracy_against_flops(results),
            "learning_curves": figures.learning_curves(results),
            "layer_widths": figures.layer_widths(results),
            "costs": figures.costs_over_iterations(results),
            "multipliers": curves.multipliers_over_iterations(results),
            "policies": curves.policies_over_iterations(results),
            "reward_fidelity": figures.rewards_against_accuracy(results),
        }
        pictures = {
            name: Picture(render(figure, "svg"), figures.ALT_TEXTS[name])
            for name, figure in drawn.items()
            if figure is not None
        }
        images = {
            name: render(figure, "png") for name, figure in drawn.items() if figure is not None
        }
    try:
        run.report.mkdir(exist_ok=True)
        for name, image in images.items():
            write_durably(run.report / f"{name}.png", image)
        write_tables(comparison_rows(results), run.report)
        write_fidelities(reward_fidelities(results), run.report)
        page = run.report / "index.html"
        write_durably(page, build_page(results, pictures).encode())
    except OSError as error:
        raise RunFolderError(
            f"The report in {run.report} cannot be written ({error.strerror or error}); make the "
            "run folder writable."
        ) from error
    return page, results
