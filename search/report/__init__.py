"""The report of a run: tables, pictures and a page that opens offline."""

from __future__ import annotations

from .results import Results, load_results
from .table import ComparisonRow, comparison_rows, judgements
from .terminal import print_results, terminal_results
from .write import write_report

__all__ = [
    "ComparisonRow",
    "Results",
    "comparison_rows",
    "judgements",
    "load_results",
    "print_results",
    "terminal_results",
    "write_report",
]
