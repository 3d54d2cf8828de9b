"""How well accuracy without fine-tuning ranks candidates, for each repair.

    python benchmarks/rank_fidelity.py --network resnet20 --candidates 40 --finetune 10000
    python benchmarks/rank_fidelity.py --network resnet56 --candidates 100

Random candidates near one budget are evaluated after each repair: accuracy on the validation
images, the other measures that follow the outputs, and accuracy on all test images. With
``--finetune N`` every candidate is fine-tuned the same way, from its fully repaired network, for
one epoch over N training images; the table gives Spearman's correlation of each score with the test
accuracy after that, and with the one after full repair, with 95 % bootstrap intervals.

With ``--images N`` every score is also taken on a sample of N validation images, as ``images: N``
in a spec takes it, and a second table says how far that is from the score on all of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from _common import (
    SMOKE_NETWORK,
    jittered_widths,
    measured_accuracy,
    parser,
    print_result,
    print_table,
    real_task,
    spearman,
    spearman_interval,
)
from prunetune.models import Candidate, TrainingSpec, trace_channel_groups, train
from prunetune.models.data import Augmentation
from prunetune.rewards import NamedSpec
from prunetune.rewards.evaluation.evaluator import (
    CandidateEvaluator,
    build_evaluator,
)
from prunetune.rewards.evaluation.evaluator_spec import EvaluatorSpec
from torch import nn

REPAIRS = ("none", "quick", "light", "full")
IMAGES = ("plain", "augmented")
SCORES = ("accuracy", "agreement", "loss")
_FINETUNING_RATE = 0.01
_SAMPLED, _ERROR = ", sampled", ", standard error"


class Worker:
    """What one process holds: the task with validation images as they are, and augmented."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        self.options = options
        self.tasks = {
            images: real_task(
                options.network,
                options.data,
                validation=options.validation,
                augmentation="none" if images == IMAGES[0] else options.augmentation,
                seed=options.seed,
            )
            for images in (IMAGES[:1] if options.augmentation == "none" else IMAGES)
        }
        softened = {"agreement": {"temperature": options.temperature}}
        measures = tuple(
            NamedSpec(name=score, parameters=softened.get(score, {})) for score in SCORES
        )
        counts: dict[str, int | None] = {"": None}
        if options.images is not None:
            counts[_SAMPLED] = options.images
        self.evaluators: dict[tuple[str, str], CandidateEvaluator] = {
            (repair, f"{images}{label}"): build_evaluator(
                task,
                EvaluatorSpec(
                    repair=repair,
                    criterion=options.criterion,
                    measures=measures,
                    images=count,
                    recalibration=options.recalibration,
                ),
                options.seed,
            )
            for images, task in self.tasks.items()
            for repair in _searched(options)
            for label, count in counts.items()
        }
        self.test = self.tasks["plain"].test()

    def evaluate(self, widths: Candidate) -> dict[str, Any]:
        """All scores of one candidate."""
        found: dict[str, Any] = {"widths": widths}
        for (repair, images), evaluator in self.evaluators.items():
            evaluation = evaluator.evaluate(widths)
            for score, value in evaluation.measures.items():
                found[f"{repair}/{images} {score}"] = value
            for score, value in evaluation.standard_errors.items():
                found[f"{repair}/{images} {score}{_ERROR}"] = value
        evaluator = self.evaluators["quick", "plain"]
        norms = evaluator.builder.statistics.norms
        for repair in _searched(self.options):
            if self.options.finetune:
                network = evaluator.build(widths, repair)
                found[f"{repair}/test"] = measured_accuracy(network, norms, self.test, "bf16")
        repaired = evaluator.build(widths, "full")
        for images, task in self.tasks.items():
            validated = measured_accuracy(repaired, norms, task.validation, "bf16")
            found[f"full/{images} accuracy"] = validated
        found["full/test"] = measured_accuracy(repaired, norms, self.test, "bf16")
        if self.options.finetune:
            found["finetuned/test"] = self._finetuned(repaired, norms)
        return found

    def _finetuned(self, network: nn.Module, norms: dict[str, str]) -> float:
        task, seed = self.tasks["plain"], self.options.seed
        indices = np.random.default_rng(seed).permutation(task.train_indices)
        spec = TrainingSpec(epochs=1, learning_rate=_FINETUNING_RATE, precision="bf16")
        train(network, task.data, indices[: self.options.finetune], spec, seed)
        return measured_accuracy(network, norms, self.test, "bf16")


def _searched(options: argparse.Namespace) -> tuple[Literal["none", "quick", "light"], ...]:
    """Repairs that are cheap enough for every candidate of a search."""
    return ("none", "quick", "light") if options.finetune else ("quick", "light")


_worker: Worker | None = None


def start(options: argparse.Namespace) -> None:
    """Prepare this process."""
    global _worker
    _worker = Worker(options)


def evaluate(widths: Candidate) -> dict[str, Any]:
    """Evaluate a candidate in this process."""
    assert _worker is not None
    return _worker.evaluate(widths)


def evaluations(options: argparse.Namespace, asked: list[Candidate]) -> Iterator[dict[str, Any]]:
    """Evaluate candidates that are not recorded, in as many processes as the options say."""
    known = _recorded(options.record)
    yield from (known[widths] for widths in asked if widths in known)
    asked = [widths for widths in asked if widths not in known]
    if options.processes == 1:
        yield from map(Worker(options).evaluate, asked)
        return
    with ProcessPoolExecutor(
        options.processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=start,
        initargs=(options,),
    ) as pool:
        yield from pool.map(evaluate, asked)


def _recorded(record: Path | None) -> dict[Candidate, dict[str, Any]]:
    if record is None or not record.is_file():
        return {}
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    return {tuple(row["widths"]): row for row in rows}


def candidates(options: argparse.Namespace) -> list[Candidate]:
    """Random candidates just below the budget."""
    task = real_task(options.network, options.data, validation=options.validation)
    structure = trace_channel_groups(task.network, task.example_input, task.scope).structure
    rng = np.random.default_rng(options.seed)
    return [
        jittered_widths(structure, options.flops, options.spread, rng)
        for _ in range(options.candidates)
    ]


def main() -> None:
    """Evaluate the candidates and print correlations and one line of JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--network", default="resnet20")
    arguments.add_argument("--candidates", type=int, default=40)
    arguments.add_argument("--flops", type=float, default=0.5)
    arguments.add_argument(
        "--spread", type=float, default=0.9, help="how unequal the groups' shares are, below 1"
    )
    arguments.add_argument("--finetune", type=int, default=0, help="training images; 0: none")
    arguments.add_argument("--validation", type=int, default=1000)
    arguments.add_argument("--images", type=int, help="also evaluate on a sample of so many")
    arguments.add_argument(
        "--augmentation",
        choices=get_args(Augmentation),
        default="crop-and-mirror",
        help="images are shown as they are and changed so; none: only as they are",
    )
    arguments.add_argument("--temperature", type=float, default=1.0, help="of the agreement")
    arguments.add_argument("--recalibration", type=int, default=128)
    arguments.add_argument("--criterion", default="activation-residual")
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument(
        "--record", type=Path, help="rows are kept in this file, and found there when run again"
    )
    arguments.add_argument("--plot", type=Path, help="where the scatter plot goes (PNG)")
    options = arguments.parse_args()
    if options.smoke:
        options.network, options.candidates, options.validation = SMOKE_NETWORK, 4, 200
        options.finetune, options.processes, options.images = 200, 1, 100
    rows = []
    asked = candidates(options)
    done = len(_recorded(options.record).keys() & set(asked))
    for row in evaluations(options, asked):
        rows.append(row)
        if options.record is not None and len(rows) > done:
            with options.record.open("a") as record:
                record.write(json.dumps(row) + "\n")
        shown = {key: f"{100 * row[key]:.2f}" for key in row if key.endswith("/test")}
        print(f"{len(rows)}/{len(asked)} test accuracy, %: {shown}", flush=True)
    correlations = _print_correlations(options, rows)
    sampled = _print_sampled(options, rows)
    if options.plot is not None:
        plot(options.plot, rows, options.network)
    print_result(
        "rank_fidelity",
        **{
            key: value
            for key, value in vars(options).items()
            if key not in ("data", "plot", "record")
        },
        correlations=correlations,
        sampled=sampled,
        rows=rows,
    )


def _print_correlations(
    options: argparse.Namespace, rows: list[dict[str, Any]]
) -> dict[str, dict[str, tuple[float, float, float]]]:
    targets = [key for key in ("full/test", "finetuned/test") if key in rows[0]]
    scores = [
        key for key in rows[0] if key not in ("widths", *targets) and not key.endswith(_ERROR)
    ]
    scores.append("full/test")
    result: dict[str, dict[str, tuple[float, float, float]]] = {}
    lines = []
    for score in scores:
        # A divergence or a loss is better when it is smaller.
        sign = -1.0 if score.endswith(("agreement", "loss")) else 1.0
        values = [sign * row[score] for row in rows]
        result[score] = {}
        for target in targets:
            if target == score:
                continue
            wanted = [row[target] for row in rows]
            low, high = spearman_interval(values, wanted, options.seed)
            result[score][target] = (spearman(values, wanted), low, high)
        lines.append(
            [
                *score.split("/"),
                *(_interval(result[score].get(target)) for target in targets),
                "-" if score == targets[-1] else f"{_among_better_half(values, wanted):.2f}",
            ]
        )
    headings = {"full/test": "test after full repair", "finetuned/test": "test after fine-tuning"}
    columns = [
        "repair",
        "score",
        *(f"with {headings[target]}" for target in targets),
        "the last, better half only",
    ]
    title = f"Spearman's correlation over {len(rows)} candidates of {options.network}"
    print_table(f"{title}, {100 * options.flops:.0f} % FLOPs", columns, lines)
    for key in (key for key in rows[0] if key.endswith("/test")):
        accuracies = 100 * np.array([row[key] for row in rows])
        print(
            f"{key}: {accuracies.min():.2f} to {accuracies.max():.2f} %, "
            f"standard deviation {accuracies.std():.2f}"
        )
    return result


def _print_sampled(
    options: argparse.Namespace, rows: list[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """How far scores on a sample are from those on all validation images."""
    result: dict[str, dict[str, float]] = {}
    for key in (key.removesuffix(_ERROR) for key in rows[0] if key.endswith(_ERROR)):
        found, errors, wanted = (
            np.array([row[each] for row in rows])
            for each in (key, key + _ERROR, key.replace(_SAMPLED, ""))
        )
        off = found - wanted
        result[key] = {
            "rms difference": float(np.sqrt(np.mean(off**2))),
            "rms standard error": float(np.sqrt(np.mean(errors**2))),
            "differences' standard deviation": float(off.std()),
            "spearman": spearman(found, wanted),
            "spearman, better half": _among_better_half(list(found), list(wanted)),
        }
    if result:
        title = f"Scores on {options.images} sampled images against those on all"
        columns = ["repair", "score", *next(iter(result.values()))]
        lines = [
            [*key.split("/"), *(f"{value:.4f}" for value in values.values())]
            for key, values in result.items()
        ]
        print_table(title, columns, lines)
    return result


def _among_better_half(values: list[float], wanted: list[float]) -> float:
    """Spearman's correlation over the candidates whose target is above its median.

    A search has to tell good candidates from better ones; the bad ones are easily told apart.
    """
    better = np.asarray(wanted) > np.median(wanted)
    return spearman(np.asarray(values)[better], np.asarray(wanted)[better])


def _interval(found: tuple[float, float, float] | None) -> str:
    return "-" if found is None else "{:.3f} ({:.2f} to {:.2f})".format(*found)


def plot(path: Path, rows: list[dict[str, Any]], network: str) -> None:
    """Test accuracy after each repair against test accuracy after fine-tuning."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    target = "finetuned/test" if "finetuned/test" in rows[0] else "full/test"
    wanted = 100 * np.array([row[target] for row in rows])
    shown = [repair for repair in REPAIRS if f"{repair}/test" in rows[0]]
    titles = {
        "none": "recalibration alone",
        "quick": "quick repair",
        "light": "light repair",
        "full": "full repair",
    }
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, repair in zip(panels, shown, strict=True):
        found = 100 * np.array([row[f"{repair}/test"] for row in rows])
        axes.scatter(found, wanted, s=14, color="#3b6ea8")
        axes.set_title(f"{titles[repair]}: Spearman {spearman(found, wanted):.2f}", fontsize=10)
        axes.set_xlabel("test accuracy before fine-tuning, %", fontsize=9)
        axes.grid(alpha=0.3)
    left = figure.axes[0]
    left.set_ylabel(
        "after fine-tuning, %" if target.startswith("fine") else "after full repair, %", fontsize=9
    )
    figure.suptitle(f"{network}: {len(rows)} random candidates", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
