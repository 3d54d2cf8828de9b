"""How far scores on a sample of the validation images are from those on all of them.

    python benchmarks/image_sampling.py --networks resnet56 resnet20

Random candidates with quick repair are run over all validation images once. Then samples of a few
sizes are drawn, as ``images: N`` in a spec draws them, many times over, and each candidate's
accuracy and agreement on the sample is compared with that on all images: the root mean square
error, whether the standard error says as much, and how many times the variance of a simple random
sample of the same size is larger (by the textbook's formula), for the scores and for the
differences between candidates, which the ranking depends on.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

import numpy as np
import torch
from _common import (
    SMOKE_NETWORK,
    for_inference,
    jittered_widths,
    parser,
    print_result,
    print_table,
    real_task,
    spearman,
    uniform_widths,
)
from numpy.typing import NDArray
from prunetune.models import Candidate, PruningTask
from prunetune.models.inference.precision import cast_network
from prunetune.rewards import Batch, EvaluatorSpec, build_evaluator
from prunetune.rewards.evaluation.evaluator import REFERENCE_WIDTHS, CandidateEvaluator
from prunetune.rewards.evaluation.sampling import (
    anticipated_deviations,
    draw_sample,
    standard_error,
)
from prunetune.rewards.measures.accuracy import Accuracy, Loss
from prunetune.rewards.measures.agreement import Agreement

_BATCH = 100
_MEASURES = (Accuracy(), Agreement(), Loss())
_SHOWN = ("accuracy", "agreement")
# FLOPs, and how unequal the groups' shares are.
_SETS = {"50 %, very unequal": (0.5, 0.9), "50 %, near uniform": (0.5, 0.2), "70 %": (0.7, 0.5)}

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One score of one set of candidates at one size of sample; means over candidates and draws.

    Attributes:
        network: Name of the network.
        candidates: The set of candidates.
        accuracy: Their mean accuracy on all images.
        images: Size of the sample.
        score: ``accuracy`` or ``agreement``.
        error: Root mean square difference from the score on all images.
        stated: Root mean square of the estimated standard error.
        covered: Share of differences within 1.96 standard errors.
        gain: How many times larger the variance of a simple random sample is.
        gain_of_differences: The same for differences between candidates.
        spearman: Between scores on the sample and on all images, mean over draws.
        simple_spearman: The same for simple random samples.
    """

    network: str
    candidates: str
    accuracy: float
    images: int
    score: str
    error: float
    stated: float
    covered: float
    gain: float
    gain_of_differences: float
    spearman: float
    simple_spearman: float


class Outputs:
    """What candidates say about every validation image."""

    def __init__(self, task: PruningTask, evaluator: CandidateEvaluator) -> None:
        self.task = task
        self.evaluator = evaluator
        self._finish = evaluator.builder.finish("quick", task.calibration[:128])
        self._dense = self._logits(task.network)

    def values(self, candidates: list[Candidate]) -> dict[str, Values]:
        """By measure, one number per candidate and image, ``[candidates, N]``."""
        found: dict[str, list[Values]] = {measure.name: [] for measure in _MEASURES}
        for widths in candidates:
            with torch.inference_mode():
                # A copy: what a slim network shares with the dense one must stay.
                slimmed = self.evaluator.builder.slim(widths, "quick")
                network = cast_network(slimmed, "fp32", torch.device("cpu"))
                self._finish(network, widths)
                batch = Batch(self._logits(network), self.task.validation.labels, self._dense)
            for measure in _MEASURES:
                found[measure.name].append(measure.per_image(batch).double().numpy())
        return {name: np.stack(values) for name, values in found.items()}

    @torch.inference_mode()
    def _logits(self, network: torch.nn.Module) -> torch.Tensor:
        precision = self.evaluator.precision
        prepared = for_inference(network, self.evaluator.builder.statistics.norms, precision)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        batches = self.task.validation.images.to(dtype).split(_BATCH)
        return torch.cat(
            [prepared(each.to(memory_format=torch.channels_last)).float() for each in batches]
        )


def measure_network(name: str, options: argparse.Namespace) -> list[Row]:
    """All rows of one network."""
    task = real_task(
        name,
        options.data,
        validation=options.validation,
        augmentation="crop-and-mirror",
        seed=options.seed,
    )
    evaluator = build_evaluator(task, EvaluatorSpec(), options.seed)
    outputs = Outputs(task, evaluator)
    structure = evaluator.groups.structure
    seen = outputs.values([uniform_widths(structure, share) for share in REFERENCE_WIDTHS])
    deviations = anticipated_deviations(seen["accuracy"], np.exp(-seen["loss"]), seen["agreement"])
    rng = np.random.default_rng(options.seed)
    rows = []
    for label, (flops, spread) in _SETS.items():
        candidates = [
            jittered_widths(structure, flops, spread, rng) for _ in range(options.candidates)
        ]
        values = outputs.values(candidates)
        for count in options.images:
            for score in _SHOWN:
                found = _compare(values[score], deviations, count, options)
                accuracy = float(values["accuracy"].mean())
                rows.append(Row(name, label, accuracy, count, score, **found))
    return rows


def _compare(
    values: Values, deviations: Values, count: int, options: argparse.Namespace
) -> dict[str, float]:
    images = values.shape[1]
    wanted = values.mean(axis=1)
    estimates, errors, ranks, simple_ranks = [], [], [], []
    for seed in range(options.draws):
        sample = draw_sample(deviations, count, options.leading, seed)
        seen = values[:, sample.indices]
        estimates.append(seen @ sample.weights / images)
        errors.append([standard_error(each, sample) for each in seen])
        ranks.append(spearman(estimates[-1], wanted))
        simple = np.random.default_rng(seed).choice(images, count, replace=False)
        simple_ranks.append(spearman(values[:, simple].mean(axis=1), wanted))
    off, stated = np.array(estimates) - wanted, np.array(errors)
    apart = off - off.mean(axis=1, keepdims=True)
    return {
        "error": float(np.sqrt(np.mean(off**2))),
        "stated": float(np.sqrt(np.mean(stated**2))),
        "covered": float(np.mean(np.abs(off) <= 1.96 * stated + 1e-12)),
        "gain": _simple_variance(values, count) / float(np.mean(off**2)),
        "gain_of_differences": _simple_variance(values - values.mean(axis=0), count)
        / float(np.mean(apart**2)),
        "spearman": float(np.mean(ranks)),
        "simple_spearman": float(np.mean(simple_ranks)),
    }


def _simple_variance(values: Values, count: int) -> float:
    """Of a simple random sample's mean, average over candidates (Cochran 1977, theorem 2.2)."""
    images = values.shape[1]
    return float((values.var(axis=1, ddof=1) * (1 - count / images) / count).mean())


def main() -> None:
    """Measure and print a table and one line of JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--networks", nargs="+", default=["resnet56", "resnet20"])
    arguments.add_argument("--candidates", type=int, default=20, help="of each set")
    arguments.add_argument("--validation", type=int, default=1000)
    arguments.add_argument("--images", type=int, nargs="+", default=[300, 400, 500])
    arguments.add_argument("--leading", type=int, default=0, help="images taken in any case")
    arguments.add_argument("--draws", type=int, default=200)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.smoke:
        options.networks, options.candidates = [SMOKE_NETWORK], 3
        options.images, options.draws = [100], 5
    rows = [row for name in options.networks for row in measure_network(name, options)]
    columns = [
        "network",
        "candidates (accuracy)",
        "images",
        "score",
        "error",
        "standard error",
        "within 1.96, %",
        "variance: simple / ours",
        "of differences",
        "Spearman (simple)",
    ]
    lines = [
        [
            row.network,
            f"{row.candidates} ({100 * row.accuracy:.1f} %)",
            row.images,
            row.score,
            f"{row.error:.4f}",
            f"{row.stated:.4f}",
            f"{100 * row.covered:.0f}",
            f"{row.gain:.1f}",
            f"{row.gain_of_differences:.1f}",
            f"{row.spearman:.3f} ({row.simple_spearman:.3f})",
        ]
        for row in rows
    ]
    print_table("A sample of the validation images against all of them", columns, lines)
    print_result(
        "image_sampling",
        validation=options.validation,
        leading=options.leading,
        draws=options.draws,
        rows=[asdict(row) for row in rows],
    )


if __name__ == "__main__":
    main()
