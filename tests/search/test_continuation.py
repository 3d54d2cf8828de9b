"""Which runs may be continued, and what is said of those that may not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prunetune.errors import RunFolderError
from prunetune.models.identity import TaskIdentity
from prunetune.search.run.continuation import (
    check_comparable,
    check_known,
    check_same_spec,
    note_identity,
    with_known_precision,
)
from prunetune.search.run.folder import RunFolder
from prunetune.search.run.record import RecordKey
from prunetune.search.spec.model import SearchSpec
from prunetune.search.spec.reading import override_values, read_spec

KEY = RecordKey(task="digits", evaluator="1", precision="fp32", repair="quick")
TASK = TaskIdentity(
    model="digits-net",
    groups="inner",
    weights="w",
    images="i",
    graph="g",
    sources={"blocks.py": "b"},
    outputs=(1.0, -2.0),
)
DENSE = {"accuracy": 0.98, "loss": 0.1}

# All that may change between a run's beginning and its continuation.
FREE = [
    "name=other",
    "output=elsewhere",
    "evaluations=2000",
    "cluster.evaluators=7",
    "cluster.storage=/shared",
    "compare.concurrent=3",
    "task.weights=elsewhere/weights.pt",
    "task.data.root=elsewhere",
]
DECISIVE = [
    ("seed=1", "seed", "0", "1"),
    ("budgets.flops=0.4", "budgets.flops", "0.5", "0.4"),
    ("task.data.split_seed=1", "task.data.split_seed", "0", "1"),
    ("reward=loss", "reward.name", "'accuracy'", "'loss'"),
    ("finetune.epochs=1", "finetune.epochs", None, "1"),
    ("compare.seeds=2", "compare.seeds", "1", "2"),
]


def spec_with(*overrides: str) -> SearchSpec:
    values: dict[str, Any] = {
        "name": "first",
        "task": {"model": "digits-net"},
        "budgets": {"flops": 0.5},
    }
    override_values(values, overrides)
    return read_spec(values)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has noted what it depends on."""
    spec = spec_with()
    folder = RunFolder.create(tmp_path / "run", spec.to_dict())
    note_identity(folder, spec, TASK, KEY, DENSE)
    return folder


@pytest.mark.parametrize("change", FREE)
def test_where_a_run_is_and_how_long_may_change(change: str, run: RunFolder) -> None:
    check_same_spec(run, spec_with(change))
    check_comparable(run, spec_with(change), TASK, KEY, DENSE)


@pytest.mark.parametrize(("change", "key", "old", "new"), DECISIVE)
def test_all_else_may_not_and_both_ways_of_asking_agree(
    change: str, key: str, old: str | None, new: str, run: RunFolder
) -> None:
    before = ".*" if old is None else re.escape(old)
    with pytest.raises(RunFolderError, match=rf"its {key} is {before}, this spec's is {new}"):
        check_same_spec(run, spec_with(change))
    with pytest.raises(RunFolderError, match=rf"{key} in its spec\.yaml was {before} and is {new}"):
        check_comparable(run, spec_with(change), TASK, KEY, DENSE)


def test_what_prunetune_has_added_since_nobody_has_changed(run: RunFolder) -> None:
    written, note = run.read_spec(), run.read_json("identity.json")
    del written["recalibration"], note["spec"]["recalibration"]
    run.write_spec(written)
    run.write_json("identity.json", note)
    check_same_spec(run, spec_with())
    check_comparable(run, spec_with(), TASK, KEY, DENSE)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("task", "network or its images have changed"),
        ("evaluator", "evaluator or a measure"),
        ("precision", "another precision"),
        ("repair", "repair of candidates"),
    ],
)
def test_evaluations_must_be_of_one_kind(part: str, said: str, run: RunFolder) -> None:
    with pytest.raises(RunFolderError, match=said):
        check_comparable(run, spec_with(), TASK, replace(KEY, **{part: "other"}), DENSE)


def test_the_dense_network_may_differ_by_rounding_and_no_more(run: RunFolder) -> None:
    check_comparable(run, spec_with(), TASK, KEY, {"accuracy": 0.975, "loss": 0.1, "new": 1.0})
    with pytest.raises(RunFolderError, match=r"accuracy was 0\.98 and is 0\.96"):
        check_comparable(run, spec_with(), TASK, KEY, {**DENSE, "accuracy": 0.96})


def test_a_moved_reward_is_the_same_and_an_edited_one_is_not(tmp_path: Path) -> None:
    text = "from prunetune.rewards.single import AccuracyReward as Mine\n"
    files = [tmp_path / name / "rewards.py" for name in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        file.write_text(text)
    specs = [spec_with(f"reward={file}:Mine") for file in files]
    folder = RunFolder.create(tmp_path / "run", specs[0].to_dict())
    note_identity(folder, specs[0], TASK, KEY, DENSE)
    check_same_spec(folder, specs[1])
    check_comparable(folder, specs[1], TASK, KEY, DENSE)
    files[1].write_text(text + "# edited\n")
    with pytest.raises(RunFolderError, match=r"the file rewards\.py has changed"):
        check_comparable(folder, specs[1], TASK, KEY, DENSE)


def test_a_run_that_noted_nothing_notes_it_now(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", spec_with().to_dict())
    check_comparable(folder, spec_with(), TASK, KEY, DENSE)
    with pytest.raises(RunFolderError, match="network or its images"):
        check_comparable(folder, spec_with(), TASK, replace(KEY, task="other"), DENSE)


def test_the_precision_of_the_beginning_stays(run: RunFolder) -> None:
    assert spec_with().precision == "auto"
    assert with_known_precision(run, spec_with()).precision == "fp32"
    assert with_known_precision(run, spec_with("precision=bf16")).precision == "bf16"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "other"}, "the network's weights have changed"),
        ({"images": "other"}, "images, their labels or the way in which pixels are read"),
        ({"graph": "other"}, "modules or graph have changed"),
        ({"sources": {"blocks.py": "other"}}, r"the file blocks\.py has changed"),
        ({"sources": {}}, r"the file blocks\.py is gone"),
        ({"sources": {"blocks.py": "b", "more.py": "m"}}, r"the file more\.py is new"),
        ({"outputs": (1.0, -2.1)}, "outputs for the same images have changed"),
    ],
)
def test_what_changed_of_a_task_is_named_and_nothing_else_is_blamed(
    changes: dict[str, Any], said: str, run: RunFolder
) -> None:
    changed = TASK.model_copy(update=changes)
    with pytest.raises(RunFolderError, match=said) as caught:
        check_comparable(run, spec_with(), changed, KEY, DENSE)
    assert "besides" not in str(caught.value)


def test_other_packages_are_named_where_they_may_be_why(run: RunFolder) -> None:
    environment = run.read_environment()
    environment["packages"]["torch"] = "1.0"
    run.write_json("environment.json", environment)
    changed = TASK.model_copy(update={"outputs": (1.0, -2.1)})
    with pytest.raises(RunFolderError, match=r"besides, torch was 1\.0 and is"):
        check_comparable(run, spec_with(), changed, KEY, DENSE)


def test_outputs_may_differ_by_rounding(run: RunFolder) -> None:
    rounded = TASK.model_copy(update={"outputs": (1.0001, -2.0001)})
    check_comparable(run, spec_with(), rounded, KEY, DENSE)


def test_a_module_that_a_named_file_imports_is_part_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "weighing.py").write_text("WEIGHT = 1.0\n")
    file = tmp_path / "own_reward.py"
    file.write_text(
        "import weighing\nfrom prunetune.rewards.single import AccuracyReward as Mine\n"
    )
    spec = spec_with(f"reward={file}:Mine")
    folder = RunFolder.create(tmp_path / "run", spec.to_dict())
    note_identity(folder, spec, TASK, KEY, DENSE)
    check_known(folder, spec)
    (tmp_path / "weighing.py").write_text("WEIGHT = 2.0\n")
    with pytest.raises(RunFolderError, match=r"because the file weighing\.py has changed, so"):
        check_known(folder, spec)


def test_a_run_of_an_earlier_version_is_one_sentence_before_anything_is_loaded(
    run: RunFolder,
) -> None:
    note = run.read_json("identity.json")
    del note["task"]
    run.write_json("identity.json", {**note, "prunetune": "0.1.0"})
    with pytest.raises(RunFolderError, match=r"begun by an earlier prunetune \(0\.1\.0\)"):
        check_known(run, spec_with())
