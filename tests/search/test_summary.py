"""The summary's round trip through its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prunetune.errors import RunFolderError
from prunetune.search.run.folder import RunFolder
from prunetune.search.run.summary import (
    Best,
    Counts,
    Dense,
    Summary,
    read_summary,
    write_summary,
)


def _summary(folder: RunFolder) -> Summary:
    return Summary(
        folder=folder.path,
        name="first",
        status="running",
        task="digits-net on digits",
        criterion="l1",
        repair="quick",
        precision="fp32",
        dense=Dense(validation=0.98, flops=100, params=10, groups={"stem": 8, "block": 16}),
        best=(
            Best(
                trial="accuracy_flops0.5_random_seed0",
                reward="accuracy",
                budget={"flops": "60M", "params": 0.5},
                agent="random",
                seed=0,
                evaluations=48,
                feasible_candidates=40,
                feasible=True,
                candidate=(3, 4),
                test_after=0.97,
            ),
        ),
        notes=("The measure 'spatial-entropy' is left out, because ...",),
        evaluations=Counts(asked=48, unique=40, cached=8, per_second=2.5),
    )


def test_a_summary_reads_back_equal_and_keeps_the_order_of_groups(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", {"name": "first"})
    assert read_summary(folder) is None
    summary = _summary(folder)
    write_summary(folder, summary)
    assert read_summary(folder) == summary
    assert list(json.loads(folder.summary_path.read_text())["dense"]["groups"]) == [
        "stem",
        "block",
    ]


def test_a_summary_can_be_read_where_the_folder_was_moved_to(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", {"name": "first"})
    write_summary(folder, _summary(folder))
    moved = folder.path.rename(tmp_path / "moved")
    summary = read_summary(RunFolder.open(moved))
    assert summary is not None and summary.folder == moved
    assert str(tmp_path) not in (moved / "summary.json").read_text()


def test_a_newer_summary_with_more_to_say_is_read_and_a_damaged_one_refused(
    tmp_path: Path,
) -> None:
    folder = RunFolder.create(tmp_path / "run", {"name": "first"})
    write_summary(folder, _summary(folder))
    folder.write_json("summary.json", {**folder.read_summary(), "something_new": 3})
    assert read_summary(folder) == _summary(folder)
    folder.summary_path.write_text("{")
    with pytest.raises(RunFolderError, match=r"summary\.json"):
        read_summary(folder)
