"""The evaluation record: durable, unique, robust against damage, readable while written."""

from __future__ import annotations

import logging
import math
import multiprocessing
import pickle
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.cluster.worker import lost_evaluation
from prunetune.errors import RunFolderError
from prunetune.rewards.evaluation.evaluation import Evaluation
from prunetune.search.run.record import EvaluationRecord, RecordKey, read_record

# Until a thread that merges is done, 50 ms each.
_TRIES = 200

KEY = RecordKey(task="resnet20", evaluator="1", precision="fp32", repair="quick")


def evaluation(*widths: int, accuracy: float = 0.5) -> Evaluation:
    return Evaluation(widths, {"accuracy": accuracy}, {"flops": 0.25}, seconds=0.5)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


numbers = st.dictionaries(
    st.sampled_from(["accuracy", "loss", "spatial-entropy"]), st.floats(width=64), max_size=3
)
fractions = st.dictionaries(
    st.sampled_from(["flops", "params"]), st.floats(0, 1, allow_nan=False), max_size=2
)
evaluations = st.builds(
    Evaluation,
    candidate=st.lists(st.integers(1, 4096), min_size=1, max_size=5).map(tuple),
    measures=numbers,
    costs=fractions,
    seconds=st.floats(0, 1e6),
    error=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(evaluations, max_size=4), max_size=4))
def test_whatever_is_appended_is_found_again_after_reopening(
    batches: list[list[Evaluation]],
) -> None:
    first: dict[tuple[int, ...], Evaluation] = {}
    with tempfile.TemporaryDirectory() as folder:
        record = EvaluationRecord(folder, KEY)
        for batch in batches:
            record.append(batch)
            for item in batch:
                first.setdefault(item.candidate, item)
        reopened = EvaluationRecord(folder, KEY)
        assert len(record) == len(reopened) == len(first) == reopened.table().num_rows
        for widths, expected in first.items():
            for found in (record.get(widths), reopened.get(widths)):
                assert found is not None
                assert dict(sorted(found.measures.items())) == pytest.approx(
                    dict(sorted(expected.measures.items())), rel=0, abs=0, nan_ok=True
                )
                assert dict(found.costs) == dict(expected.costs)
                assert (found.seconds, found.error) == (expected.seconds, expected.error)


def test_an_unknown_candidate_is_not_found(tmp_path: Path) -> None:
    record = EvaluationRecord(tmp_path, KEY)
    record.append([evaluation(1, 2)])
    assert record.get((2, 1)) is None
    assert record.get((1,)) is None
    assert (1, 2) in record and (2, 1) not in record


def test_evaluations_of_another_key_are_kept_apart(tmp_path: Path) -> None:
    other_key = RecordKey("resnet20", "2", "fp32", "quick")
    EvaluationRecord(tmp_path, KEY).append([evaluation(3, accuracy=0.1), evaluation(4)])
    other = EvaluationRecord(tmp_path, other_key)
    assert other.get((3,)) is None
    other.append([evaluation(3, accuracy=0.9)])
    again = EvaluationRecord(tmp_path, KEY)
    assert again.get((3,)) == evaluation(3, accuracy=0.1)
    assert EvaluationRecord(tmp_path, other_key).get((3,)) == evaluation(3, accuracy=0.9)
    assert (again.table().num_rows, read_record(tmp_path).num_rows) == (2, 3)


def test_a_candidate_keeps_its_first_evaluation(tmp_path: Path) -> None:
    record = EvaluationRecord(tmp_path, KEY)
    record.append([evaluation(3, accuracy=0.1), evaluation(3, accuracy=0.2)])
    record.append([evaluation(3, accuracy=0.3)])
    assert record.table().column("measures.accuracy").to_pylist() == [0.1]


def test_a_measure_added_later_leaves_older_evaluations_without_it(tmp_path: Path) -> None:
    record = EvaluationRecord(tmp_path, KEY)
    record.append([Evaluation((1,), {"accuracy": 0.5})])
    record.append([Evaluation((2,), {"accuracy": math.nan, "loss": 1.0})])
    reopened = EvaluationRecord(tmp_path, KEY)
    older, newer = reopened.get((1,)), reopened.get((2,))
    assert older is not None and newer is not None
    assert dict(older.measures) == {"accuracy": 0.5}
    assert math.isnan(newer.measures["accuracy"]) and newer.measures["loss"] == 1.0


def test_a_failed_evaluation_keeps_its_error(tmp_path: Path) -> None:
    failed = Evaluation((7,), error="ValueError: no")
    EvaluationRecord(tmp_path, KEY).append([failed])
    assert EvaluationRecord(tmp_path, KEY).get((7,)) == failed


def test_a_lost_evaluation_is_forgotten_and_a_second_one_takes_its_place(tmp_path: Path) -> None:
    EvaluationRecord(tmp_path, KEY).append([lost_evaluation((7,), 4, "killed")])
    reopened = EvaluationRecord(tmp_path, KEY)
    assert reopened.get((7,)) is None
    reopened.append([evaluation(7)])
    assert EvaluationRecord(tmp_path, KEY).get((7,)) == evaluation(7)
    assert read_record(tmp_path).num_rows == 1


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_a_truncated_file_costs_only_its_own_rows(
    tmp_path: Path, keep: float, caplog: pytest.LogCaptureFixture
) -> None:
    record = EvaluationRecord(tmp_path, KEY)
    record.append([evaluation(1)])
    record.append([evaluation(2)])
    last = files(tmp_path)[-1]
    content = last.read_bytes()
    last.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with caplog.at_level(logging.WARNING):
        assert read_record(tmp_path).num_rows == 1
        reopened = EvaluationRecord(tmp_path, KEY)
    assert last.name in caplog.text
    assert reopened.get((1,)) == evaluation(1)
    assert reopened.get((2,)) is None
    reopened.append([evaluation(2)])
    caplog.clear()
    assert len(EvaluationRecord(tmp_path, KEY)) == 2
    assert caplog.text == ""


def test_a_flipped_bit_is_never_taken_for_a_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    accuracies = rng.random(200)
    record = EvaluationRecord(tmp_path, KEY)
    record.append([evaluation(i + 1, accuracy=a) for i, a in enumerate(accuracies)])
    (path,) = files(tmp_path)
    content = path.read_bytes()
    for position in rng.integers(4, len(content) - 8, size=60):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        found = read_record(tmp_path)
        assert found.num_rows == 0
    path.write_bytes(content)
    assert read_record(tmp_path).column("measures.accuracy").to_pylist() == accuracies.tolist()


def test_a_foreign_parquet_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.parquet").write_bytes(b"not ours")
    EvaluationRecord(tmp_path, KEY).append([evaluation(1)])
    assert len(EvaluationRecord(tmp_path, KEY)) == 1
    assert (tmp_path / "notes.parquet").exists()


def test_many_small_files_become_few_and_lose_nothing(tmp_path: Path) -> None:
    record = EvaluationRecord(tmp_path, KEY)
    for width in range(1, 151):
        record.append([evaluation(width, accuracy=width / 1000)])
    # Opening merges what is small, unless a thread of the writer is at it.
    for _ in range(_TRIES):
        assert len(EvaluationRecord(tmp_path, KEY)) == 150
        if len(files(tmp_path)) < 10:
            break
        time.sleep(0.05)
    assert len(files(tmp_path)) < 10
    accuracies = record.table().column("measures.accuracy").to_pylist()
    assert sorted(accuracies) == [width / 1000 for width in range(1, 151)]


def test_a_crash_between_a_merge_and_its_removals_leaves_no_row_twice(tmp_path: Path) -> None:
    record = EvaluationRecord(tmp_path, KEY)
    for width in range(1, 6):
        record.append([evaluation(width)])
    small = {path: path.read_bytes() for path in files(tmp_path)}
    assert len(EvaluationRecord(tmp_path, KEY)) == 5, "opening it merges"
    assert len(files(tmp_path)) == 1
    for path, content in small.items():
        path.write_bytes(content)
    assert read_record(tmp_path).num_rows == 5
    assert len(EvaluationRecord(tmp_path, KEY)) == 5


def test_a_leftover_of_an_interrupted_write_is_ignored(tmp_path: Path) -> None:
    record = EvaluationRecord(tmp_path, KEY)
    record.append([evaluation(1)])
    (path,) = files(tmp_path)
    (tmp_path / f".{path.name}.99.1.tmp").write_bytes(path.read_bytes()[:50])
    assert len(EvaluationRecord(tmp_path, KEY)) == 1


def test_it_pickles_as_a_place_not_as_its_content(tmp_path: Path) -> None:
    record = EvaluationRecord(tmp_path, KEY)
    record.append([evaluation(i) for i in range(1, 1000)])
    content = pickle.dumps(record)
    assert len(content) < 1000
    assert len(pickle.loads(content)) == 999


def _write_many(folder: Path, first: int) -> None:
    record = EvaluationRecord(folder, KEY)
    for width in range(first, first + 80):
        record.append([evaluation(width)])


def test_two_processes_write_while_a_third_reads(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path, f)) for f in (1, 41)]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        rows = read_record(tmp_path).num_rows
        assert rows >= seen, "a row vanished while files were merged"
        seen = rows
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    widths = [row[0] for row in read_record(tmp_path).column("candidate").to_pylist()]
    assert sorted(widths) == list(range(1, 121))


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be opened"):
        EvaluationRecord(tmp_path / "file" / "evaluations", KEY)
