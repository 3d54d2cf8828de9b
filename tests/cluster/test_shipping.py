"""What a job takes along: the whole package, and the user's files if they are not too large."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import prunetune
import pytest
from prunetune.cluster.shipping import MAX_BYTES, ShippedPath, check_size, fingerprint, ship
from prunetune.errors import ClusterError


def _sparse(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def test_the_package_that_is_shipped_runs_by_itself(tmp_path: Path) -> None:
    ship(tmp_path / "job.zip", [], {"spec.yaml": "name: mine"})
    with zipfile.ZipFile(tmp_path / "job.zip") as archive:
        archive.extractall(tmp_path / "job")
    shipped = {path.relative_to(tmp_path / "job").as_posix() for path in tmp_path.rglob("job/*")}
    assert shipped == {"prunetune", "spec.yaml"}
    done = subprocess.run(
        [sys.executable, "-c", "import prunetune.cli; print(prunetune.cli.__file__)"],
        cwd=tmp_path / "job",
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "job")
    assert (tmp_path / "job" / "prunetune" / "search" / "quickstart.yaml").exists()
    inside = {path.name for path in (tmp_path / "job" / "prunetune").iterdir()}
    assert not inside & {"tests", "benchmarks", "docs", "examples", ".git", "__pycache__"}


@pytest.mark.slow
def test_an_installed_package_ships_the_same_files(tmp_path: Path) -> None:
    """What is shipped is itself a plain install; shipping from it must give it again."""
    ship(tmp_path / "first.zip", [], {})
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        archive.extractall(tmp_path / "site")
    script = "from prunetune.cluster.shipping import *; from pathlib import Path; "
    subprocess.run(
        [sys.executable, "-c", script + f"ship(Path({str(tmp_path / 'second.zip')!r}), [], {{}})"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        check=True,
    )
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()


def test_equal_files_make_an_equal_zip(tmp_path: Path) -> None:
    zips = []
    for where, when in (("one", 1_000_000_000), ("two", 1_700_000_000)):
        source = tmp_path / where / "data"
        source.mkdir(parents=True)
        for name in sorted("ab", reverse=where == "two"):
            (source / name).write_text(name)
            os.utime(source / name, (when, when))
        zips.append(tmp_path / f"{where}.zip")
        ship(zips[-1], [ShippedPath("data", source, "files/data")], {"spec.yaml": "x"})
    assert zips[0].read_bytes() == zips[1].read_bytes()
    with zipfile.ZipFile(zips[0]) as archive:
        assert {"files/data/a", "files/data/b"} <= set(archive.namelist())


def test_a_fingerprint_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    prints = {
        fingerprint([ShippedPath("x", tmp_path / source, name)])
        for source, name in (("a", "n"), ("b", "n"), ("a", "m"))
    }
    assert len(prints) == 2
    (tmp_path / "a").write_text("2")
    assert fingerprint([ShippedPath("x", tmp_path / "a", "n")]) not in prints


def test_what_is_too_large_is_named_before_it_is_sent(tmp_path: Path) -> None:
    _sparse(tmp_path / "images" / "deep" / "train.bin", MAX_BYTES)
    _sparse(tmp_path / "weights.pt", 3 * 1024**2)
    _sparse(tmp_path / "small.py", 10)
    paths = [
        ShippedPath(name, tmp_path / name, name) for name in ("small.py", "weights.pt", "images")
    ]
    check_size(paths[:2])
    with pytest.raises(ClusterError) as refusal:
        check_size(paths)
    message = str(refusal.value)
    assert "103.0 MiB" in message and "100.0 MiB" in message
    assert message.index("'images' (100.0 MiB)") < message.index("'weights.pt' (3.0 MiB)")
    assert "absolute path" in message


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"'nothing\.pt' does not exist"):
        check_size([ShippedPath("nothing.pt", tmp_path / "nothing.pt", "files/nothing.pt")])


def test_our_version_is_shipped(tmp_path: Path) -> None:
    ship(tmp_path / "job.zip", [], {})
    with zipfile.ZipFile(tmp_path / "job.zip") as archive:
        assert prunetune.__version__.encode() in archive.read("prunetune/__init__.py")
