"""The report's page is one file without scripts, for grey paper, phones and keyboards alike."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import yaml

from ..._text import visible
from ..run.summary import Best
from .fidelity import reward_fidelities
from .results import FLOPS_NOTE, Results, budget_text, cost_name
from .significance import MARGIN
from .table import (
    FIDELITY_HEADINGS,
    HEADINGS,
    comparison_rows,
    displayed,
    displayed_fidelity,
    judgements,
    short_count,
)

__all__ = ["Picture", "build_page"]

_TRIAL_HEADINGS = (
    "trial",
    "validation",
    "before fine-tuning",
    "after fine-tuning",
    "FLOPs",
    "params",
    "other budgets",
    "evaluations",
    "artifact",
)

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff;
  max-width: 64rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; padding: 0; list-style: none; }
a { color: #0b4f8a; } a:focus-visible, .wide:focus-visible, summary:focus-visible {
  outline: 3px solid #111; outline-offset: 2px; }
.skip { position: absolute; left: -999px; } .skip:focus { position: static; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #444; padding: 0.25rem 0; }
caption span { display: inline-block; position: sticky; left: 0;
  max-width: min(60rem, 100vw - 2rem); }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid #bbb; text-align: right;
  white-space: nowrap; }
th { text-align: left; } thead th { border-bottom: 2px solid #111; }
figure { margin: 0; } figure img { max-width: 100%; min-width: 36rem; height: auto; }
pre { overflow-x: auto; background: #f4f4f4; padding: 0.75rem; font-size: 0.85rem; }
@media print { .skip, nav { display: none; } }
"""


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
        svg: The file's content.
        alternative: What it shows, in words.
    """

    svg: bytes
    alternative: str


def build_page(results: Results, pictures: Mapping[str, Picture]) -> str:
    """Build the page as HTML text, which holds everything that it needs.

    Args:
        results: What it shows.
        pictures: By name; those that are missing are left out with their sections.
    """
    sections = [
        ("verdict", "Verdict", _verdicts(results)),
        ("comparison", "Comparison", _comparison(results)),
        (
            "accuracy",
            "Accuracy against FLOPs",
            _picture(pictures, "accuracy_vs_flops", _FLOPS_TEXT),
        ),
        ("learning", "Learning curves", _picture(pictures, "learning_curves", _LEARNING_TEXT)),
        ("widths", "Widths of the bests", _picture(pictures, "layer_widths", _WIDTHS_TEXT)),
        (
            "constraints",
            "Costs, multipliers and policies",
            _picture(pictures, "costs", _COSTS_TEXT)
            + _picture(pictures, "multipliers", _MULTIPLIERS_TEXT)
            + _picture(pictures, "policies", _POLICIES_TEXT),
        ),
        (
            "fidelity",
            "Reward fidelity",
            _fidelities(results) + _picture(pictures, "reward_fidelity", _FIDELITY_TEXT),
        ),
        ("trials", "Every search", _trials(results)),
        ("run", "The run", _run(results)),
    ]
    sections = [section for section in sections if section[2]]
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in sections)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title">'
        f'<h2 id="{key}-title">{title}</h2>{content}</section>\n'
        for key, title, content in sections
    )
    name = _text(results.summary.name)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name} - prunetune</title>"
        # An empty icon keeps browsers from asking the (absent) server for one.
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head>\n<body>'
        '<a class="skip" href="#main">Skip to the results</a>'
        f'<header><h1>{name}</h1>{_headline(results)}<nav aria-label="Sections"><ul>{links}</ul>'
        f'</nav></header>\n<main id="main">\n{body}</main></body></html>\n'
    )


_FLOPS_TEXT = (
    "Grey points are all evaluations: candidates repaired and judged on validation images, not "
    "fine-tuned. Markers are each search's best candidate, fine-tuned and judged once on the test "
    "images, and the dense network."
)
_LEARNING_TEXT = (
    "Validation accuracy of the best feasible candidate so far, where best means the highest value "
    "of the search's own reward. A thin line is one seed, a thick one the median."
)
_WIDTHS_TEXT = "Channels kept in each channel group by the best candidates of the first seed."
_COSTS_TEXT = f"Mean cost of the candidates as each search went on. {FLOPS_NOTE}"
_FIDELITY_TEXT = (
    "Points are rank correlations, lines their 95 % intervals; hollow: no search of this run "
    "maximised that reward."
)
_MULTIPLIERS_TEXT = "Lagrange multipliers: the price that a search puts on breaking a budget."
_POLICIES_TEXT = (
    "Mean reward of the candidates of an iteration, feasible or not, and entropy of the policy "
    "that sampled them."
)


def _headline(results: Results) -> str:
    dense = results.dense
    counts = results.summary.evaluations
    parts = [
        f"Status: {_text(results.summary.status)}.",
        f"Dense network: test accuracy {_percent(dense.test)}, {short_count(dense.flops)} FLOPs, "
        f"{short_count(dense.params)} parameters.",
    ]
    if counts.asked:
        parts.append(
            f"{counts.asked} candidates asked for: {counts.unique} evaluated, {counts.cached} "
            f"answered from the record; {counts.failed} failed."
        )
    return f"<p>{' '.join(parts)}</p>"


def _verdicts(results: Results) -> str:
    found = judgements(results)
    if not found:
        return ""
    items = "".join(
        f"<li><strong>{_text(budget_text(each.budget))}, {_text(each.agent)}:</strong> "
        f"{_text(each.sentence)}</li>"
        for each in found
    )
    return (
        f"<ul>{items}</ul><p>Test accuracy after the same fine-tuning, paired by seed, mean "
        f"difference ± half of Student's 95 % interval. On par means that the whole interval is "
        f"within {100 * MARGIN:g} points.</p>"
    )


def _comparison(results: Results) -> str:
    rows = [displayed(row, results) for row in comparison_rows(results)]
    caption = (
        "Medians over seeds [95 % bootstrap interval, from 3 seeds on] of the best feasible "
        f"candidates; <em>to dense</em> in points. {FLOPS_NOTE}"
    )
    files = (
        '<p>As files: <a href="comparison.csv">CSV</a>, '
        '<a href="comparison.parquet">Parquet</a>.</p>'
    )
    return _table("Comparison", HEADINGS, rows, caption, texts=3) + files if rows else ""


def _fidelities(results: Results) -> str:
    rows = [displayed_fidelity(each) for each in reward_fidelities(results)]
    if not any(row[3] != "-" for row in rows):
        return ""
    caption = (
        "Spearman's rank correlation between each reward, as a search sees it, and test accuracy "
        "after fine-tuning, over all candidates that were fine-tuned [95 % interval, Bonett & "
        "Wright 2000]. They are what searches chose as their best, not a random sample."
    )
    files = '<p>As files: <a href="fidelity.csv">CSV</a>, <a href="fidelity.parquet">Parquet</a>.'
    return _table("Reward fidelity", FIDELITY_HEADINGS, rows, caption, texts=2) + f"{files}</p>"


def _trials(results: Results) -> str:
    rows = []
    remarks = []
    for best in results.bests:
        if best.error:
            remarks.append(f"<li>{_text(best.trial)} ended early: {_text(best.error)}</li>")
        remarks.extend(f"<li>{_text(best.trial)}: {_text(note)}</li>" for note in best.notes)
        rows.append(
            (
                best.trial
                + ("" if best.feasible else " (over budget)")
                + (" (stopped early)" if best.stopped else ""),
                _percent(best.validation),
                _percent(best.test_before),
                _percent(best.test_after),
                "-" if best.flops is None else short_count(best.flops),
                "-" if best.params is None else short_count(best.params),
                _other_budgets(best),
                str(best.evaluations),
                best.artifact or "-",
            )
        )
    if not rows:
        return ""
    caption = (
        "The best candidate of every search, on test images where not said otherwise. Other "
        "budgets: as fractions of dense (the cost itself where dense costs nothing), and as "
        f"measured on the network as delivered. {FLOPS_NOTE}"
    )
    table = _table("Every search", _TRIAL_HEADINGS, rows, caption, texts=1)
    return table + (f"<ul>{''.join(remarks)}</ul>" if remarks else "")


def _other_budgets(best: Best) -> str:
    """Say what was known and measured of budgets beside those on FLOPs and parameters."""
    units = {"latency": (1e3, " ms"), "activation-memory": (1e-3, " kB")}
    parts = []
    for cost in best.budget:
        if cost in ("flops", "params") or cost not in (best.costs or {}):
            continue
        text = f"{cost_name(cost)} {(best.costs or {})[cost]:.3g}"
        if cost in best.measured:
            scale, unit = units.get(cost, (1.0, ""))
            text += f" (measured {scale * best.measured[cost]:.4g}{unit})"
        parts.append(text)
    return ", ".join(parts) or "-"


def _run(results: Results) -> str:
    summary = results.summary
    spec = yaml.safe_dump(dict(results.spec), sort_keys=False, allow_unicode=True)
    machine = yaml.safe_dump(dict(results.environment), sort_keys=False, allow_unicode=True)
    images = results.spec.get("images")
    notes = "".join(f"<li>{_text(note)}</li>" for note in summary.notes)
    sampled = f", on a sample of {images} validation images" if images else ""
    return (
        f"<p>It took {summary.wall_seconds:.0f} seconds, {summary.search_seconds:.0f} of them for "
        f"searching. Candidates: repair {_text(summary.repair)}, criterion "
        f"{_text(summary.criterion)}, {_text(summary.precision)}{_text(sampled)}.</p>"
        + (f"<ul>{notes}</ul>" if notes else "")
        + f"<p>Folder: <code>{_text(str(results.path))}</code></p>"
        f"<details><summary>The spec</summary><pre>{_text(spec)}</pre></details>"
        f"<details><summary>The machine</summary><pre>{_text(machine)}</pre></details>"
    )


def _picture(pictures: Mapping[str, Picture], name: str, text: str) -> str:
    picture = pictures.get(name)
    if picture is None:
        return ""
    content = base64.b64encode(picture.svg).decode()
    return (
        # A picture that shrank with a phone's screen could not be read; it is scrolled instead.
        '<figure><div class="wide" tabindex="0" role="region" '
        f'aria-label="Picture: {_text(name.replace("_", " "))}">'
        f'<img alt="{_text(picture.alternative)}" src="data:image/svg+xml;base64,{content}"></div>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _table(
    label: str, headings: Sequence[str], rows: Iterable[Sequence[str]], caption: str, texts: int
) -> str:
    head = "".join(f'<th scope="col">{_text(heading)}</th>' for heading in headings)
    lines = []
    for row in rows:
        cells = [f'<th scope="row">{_text(cell)}</th>' for cell in row[:texts]]
        cells += [f"<td>{_text(cell)}</td>" for cell in row[texts:]]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        # Keyboards can scroll a wide table only if it can be focused.
        f'<div class="wide" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<caption><span>{caption}</span></caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _text(text: str) -> str:
    """Text that others may have written, for HTML."""
    return escape(visible(text))
