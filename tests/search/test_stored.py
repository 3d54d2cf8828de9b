"""Where runs are written: below the storage, which for a URI is copied."""

from __future__ import annotations

from pathlib import Path

import pytest
from prunetune.errors import RunFolderError, SpecError
from prunetune.search.run.folder import RunFolder
from prunetune.search.run.location import holds_run, opened_run, stored
from prunetune.search.spec.model import SearchSpec
from prunetune.search.spec.reading import read_spec


def _spec(output: str | None = None, storage: str | None = None, seed: int = 0) -> SearchSpec:
    return read_spec(
        {
            "name": "my spec",
            "task": {"model": "digits-net"},
            "budgets": {"flops": 0.5},
            "seed": seed,
            "output": output,
            "cluster": {"storage": storage},
        }
    )


def _begin(spec: SearchSpec, resume: bool = False) -> str | None:
    """Begin a run in its place, as a search does first of all."""
    with stored(spec, resume) as run:
        assert run.folder is not None
        if not holds_run(run.folder):
            RunFolder.create(run.folder, spec.to_dict())
        return run.address


def test_without_storage_the_output_stays() -> None:
    with stored(_spec("runs/first"), resume=False) as run:
        assert run.folder == Path("runs/first")
    with stored(_spec(), resume=False) as run:
        assert run.folder is None


def test_runs_are_numbered_below_the_storage(tmp_path: Path, cache_folder: Path) -> None:
    for storage in (str(tmp_path / "path"), f"file://{tmp_path}/uri"):
        runs = [_begin(_spec(storage=storage)) for _ in range(2)]
        assert runs == [f"{storage}/my-spec-1", f"{storage}/my-spec-2"]
    assert holds_run(tmp_path / "path" / "my-spec-2")
    assert holds_run(tmp_path / "uri" / "my-spec-2"), "it was copied to its URI"


def test_a_run_at_a_uri_continues_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _spec("first", f"file://{tmp_path}/uri")
    monkeypatch.setenv("PRUNETUNE_CACHE", str(tmp_path / "one machine"))
    uri = _begin(spec)
    assert uri is not None
    with pytest.raises(RunFolderError, match=f"prunetune resume {uri}"):
        _begin(spec)
    monkeypatch.setenv("PRUNETUNE_CACHE", str(tmp_path / "another machine"))
    with stored(spec, resume=True) as run:
        assert run.folder is not None and holds_run(run.folder)
    with opened_run(uri) as folder:
        (folder / "report").write_text("new")
    assert (tmp_path / "uri" / "first" / "report").read_text() == "new"
    with pytest.raises(RunFolderError, match="There is no run at"), opened_run(f"{uri}-2"):
        pass


def test_an_absolute_output_is_not_below_a_uri(tmp_path: Path) -> None:
    spec = _spec(str(tmp_path / "out"), f"file://{tmp_path}/uri")
    with pytest.raises(SpecError, match="give the run's name below it"), stored(spec, False):
        pass
