"""How the record of evaluations behaves as it grows, up to a million rows.

    python benchmarks/record_scaling.py --rows 1000 100000 1000000

Evaluations with the widths of ResNet-56's groups and the numbers that a search records are appended
as a search appends them: many at a time while it grows, then one at a time for the timings. The
figures are what a search meets: how long an evaluation takes to be on disk (fsynced), to be looked
up, and how long a resumed run takes to open the record; and what a reader of all rows takes.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, print_result, print_table
from prunetune.rewards.evaluation.evaluation import Evaluation
from prunetune.search.run.record import EvaluationRecord, RecordKey, read_record

_KEY = RecordKey("a" * 64, "b" * 64, "bf16", "quick")
_GROUPS = 27
_MEASURES = ("accuracy", "loss", "agreement", "spatial-entropy", "neuron-entropy", "confidence")
_BATCH = 1000
_SINGLES = 50


class Source:
    """Endless different evaluations."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def draw(self, count: int) -> list[Evaluation]:
        """As many as are asked for."""
        widths = self._rng.integers(1, 65, size=(count, _GROUPS)).tolist()
        numbers = self._rng.random((count, len(_MEASURES) + 2)).tolist()
        return [
            Evaluation(
                tuple(each),
                dict(zip(_MEASURES, values, strict=False)),
                {"flops": values[-2], "params": values[-1]},
                0.3,
            )
            for each, values in zip(widths, numbers, strict=True)
        ]


def measure(record: EvaluationRecord, folder: Path, source: Source) -> dict[str, Any]:
    """What one more evaluation costs at the present size."""
    appends, lookups = [], []
    for evaluation in source.draw(_SINGLES):
        began = time.perf_counter()
        record.append([evaluation])
        appends.append(time.perf_counter() - began)
    reopened = EvaluationRecord(folder, _KEY)
    _, opening = timed(lambda: len(reopened))  # which is when it reads
    rows, reading = timed(lambda: read_record(folder).num_rows)
    known = [tuple(w) for w in read_record(folder)["candidate"].slice(0, 200).to_pylist()]
    for widths in known:
        began = time.perf_counter()
        assert reopened.get(widths) is not None
        lookups.append(time.perf_counter() - began)
    files = list(folder.glob("part-*.parquet"))
    return {
        "rows": rows,
        "append ms": 1000 * statistics.median(appends),
        "slowest append ms": 1000 * max(appends),
        "lookup ms": 1000 * statistics.median(lookups),
        "open s": opening,
        "read all s": reading,
        "files": len(files),
        "MB on disk": sum(path.stat().st_size for path in files) / 1e6,
    }


def timed(call: Any) -> tuple[Any, float]:
    """Call it, and say how many seconds it took."""
    began = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    given = options.parse_args()
    sizes = [200] if given.smoke else sorted(given.rows)
    source = Source(given.seed)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record = EvaluationRecord(folder, _KEY)
        for size in sizes:
            while len(record) < size:
                record.append(source.draw(min(_BATCH, size - len(record))))
            # Opened again it merges what is small.
            record = EvaluationRecord(folder, _KEY)
            assert len(record) == size
            rows.append(measure(record, folder, source))
    print_table("The record", list(rows[0]), [list(row.values()) for row in rows])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print_result("record_scaling", rows=rows, peak_mib=peak)


if __name__ == "__main__":
    main()
