"""Specs that travel: the files they name go along, and equal runs have equal names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from prunetune.errors import ClusterError, SpecError
from prunetune.search.spec.portable import PortableSpec, portable_spec
from prunetune.search.spec.reading import load_spec

_SPEC: dict[str, Any] = {
    "task": {
        "model": "networks/own.py:build",
        "weights": "../shared/own.pt",
        "data": "parquet:images",
    },
    "budgets": {"flops": 0.5},
    "reward": {"name": "rewards.py:Mine"},
}


def _project(folder: Path, **changes: Any) -> Path:
    files = ["networks/own.py", "rewards.py", "images/train.parquet", "images/test.parquet"]
    for name in [*files, "../shared/own.pt"]:
        path = folder / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    spec = folder / "project" / "own.yaml"
    spec.write_text(yaml.safe_dump({**_SPEC, **changes}))
    return spec


def _unpack(portable: PortableSpec, folder: Path) -> Path:
    for path in portable.paths:
        for name, source in path.files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    (folder / "spec.yaml").write_text(portable.to_yaml())
    return folder / "spec.yaml"


def test_paths_lead_to_the_files_that_were_sent(tmp_path: Path) -> None:
    portable = portable_spec(_project(tmp_path))
    there = load_spec(_unpack(portable, tmp_path / "job"), check=False)
    assert there.task.weights is not None and there.task.data.root is not None
    assert there.task.weights.read_text() == "../shared/own.pt"
    assert (there.task.data.root / "train.parquet").read_text() == "images/train.parquet"
    assert Path(there.task.model.partition(":")[0]).read_text() == "networks/own.py"
    assert Path(there.reward.name.partition(":")[0]).read_text() == "rewards.py"
    assert str(tmp_path / "job") in there.task.model


def test_absolute_paths_are_the_clusters_own(tmp_path: Path) -> None:
    task = {"model": "resnet56", "weights": "/data/resnet56.pt", "data": "parquet:~/cifar10"}
    portable = portable_spec(_project(tmp_path, task=task, reward="accuracy"))
    assert portable.paths == []
    assert str(portable.spec.task.weights) == "/data/resnet56.pt"
    assert str(portable.spec.task.data.root) == "~/cifar10"


def test_a_run_has_one_name_wherever_it_is_submitted_from(tmp_path: Path) -> None:
    names = set()
    for place in ("here", "there"):
        spec = _project(tmp_path / place)
        names.add(portable_spec(spec, command="search").run)
        # How large the cluster is, and how one reaches it, does not make another run.
        overrides = ["cluster.evaluators=7", "cluster.address=auto"]
        names.add(portable_spec(spec, overrides, command="search").run)
    assert len(names) == 1
    assert names.pop().startswith("own-")


def test_another_run_has_another_name(tmp_path: Path) -> None:
    spec = _project(tmp_path)
    names = [portable_spec(spec, command="search").run, portable_spec(spec, command="compare").run]
    names.append(portable_spec(spec, ["seed=1"], command="search").run)
    names.append(portable_spec(spec, ["output=second"], command="search").run)
    (spec.parent / "rewards.py").write_text("changed")
    names.append(portable_spec(spec, command="search").run)
    assert len(set(names)) == len(names)


def test_a_grid_is_a_comparison(tmp_path: Path) -> None:
    assert portable_spec(_project(tmp_path)).command == "search"
    assert portable_spec(_project(tmp_path, compare={"seeds": 3})).command == "compare"


def test_included_files_keep_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _project(tmp_path)
    (spec.parent / "networks" / "tables").mkdir()
    (spec.parent / "networks" / "tables" / "a.csv").write_text("1")
    monkeypatch.chdir(spec.parent)
    portable = portable_spec("own.yaml", include=[Path("networks/tables")])
    there = load_spec(_unpack(portable, tmp_path / "job"), check=False)
    beside = Path(there.task.model.partition(":")[0]).parent
    assert (beside / "tables" / "a.csv").read_text() == "1"


def test_what_an_own_file_imports_goes_with_it(tmp_path: Path) -> None:
    spec = _project(tmp_path)
    folder = spec.parent / "networks"
    (folder / "own.py").write_text("import json, pieces\n")
    (folder / "pieces").mkdir()
    (folder / "pieces" / "__init__.py").write_text("from . import deep\n")
    (folder / "pieces" / "deep.py").write_text("x = 1\n")
    (folder / "not_imported.py").write_text("")
    there = load_spec(_unpack(portable_spec(spec), tmp_path / "job"), check=False)
    beside = Path(there.task.model.partition(":")[0]).parent
    assert (beside / "pieces" / "deep.py").read_text() == "x = 1\n"
    assert not (beside / "not_imported.py").exists()


@pytest.mark.parametrize(
    ("output", "storage", "folder"),
    [
        (None, None, "~/runs/RUN"),
        ("first", None, "~/runs/first"),
        ("/big/first", None, "/big/first"),
        (None, "/shared", "/shared/RUN"),
        ("first", "s3://bucket/runs/", "s3://bucket/runs/first"),
        ("first", "s3://bucket?scheme=http", "s3://bucket/first?scheme=http"),
        ("/big/first", "/shared", "/big/first"),
    ],
)
def test_the_run_folder_on_the_cluster(
    output: str | None, storage: str | None, folder: str, tmp_path: Path
) -> None:
    spec = _project(tmp_path, output=output, cluster={"storage": storage})
    portable = portable_spec(spec)
    assert portable.folder("~/runs") == folder.replace("RUN", portable.run)


def test_what_is_missing_or_too_large_is_one_sentence(tmp_path: Path) -> None:
    spec = _project(tmp_path)
    with (spec.parent / "images" / "train.parquet").open("wb") as file:
        file.truncate(200 * 1024**2)
    with pytest.raises(ClusterError, match=r"largest are 'images' \(200\.0 MiB\)"):
        portable_spec(spec)
    (spec.parent / "rewards.py").unlink()
    with pytest.raises(ClusterError, match=r"'rewards\.py' does not exist"):
        portable_spec(spec)
    with pytest.raises(SpecError, match="no spec file"):
        portable_spec(tmp_path / "none.yaml")
