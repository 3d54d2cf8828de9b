"""Storage: one clear sentence when a node cannot write, or writes where nobody else looks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prunetune.cli.app import app
from prunetune.cluster import ClusterSpec, connect
from prunetune.cluster.storage import check_storage, is_uri, open_storage
from prunetune.errors import ClusterError
from typer.testing import CliRunner

from .ray_nodes import Head, can_unshare, started_node


def test_paths_and_uris_are_told_apart(tmp_path: Path) -> None:
    assert is_uri("s3://bucket/runs")
    assert not is_uri("/shared/runs")
    for same in (str(tmp_path), f"file://{tmp_path}"):
        filesystem, path = open_storage(same)
        with filesystem.open_output_stream(f"{path}/here") as file:
            file.write(b"x")
        assert (tmp_path / "here").read_bytes() == b"x"
        (tmp_path / "here").unlink()


def test_a_storage_of_an_unknown_kind_is_one_sentence() -> None:
    with pytest.raises(ClusterError, match="'ftp://host/runs' cannot be opened"):
        open_storage("ftp://host/runs")


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_storage(str(tmp_path / "runs"))
    connect(ClusterSpec(storage=f"file://{tmp_path}/runs"))
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_storage_that_the_driver_cannot_write_is_one_sentence(tmp_path: Path) -> None:
    # Below a file, because the superuser may write to any folder.
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match=r"file/runs' cannot be written \(.*; make it writable"):
        connect(ClusterSpec(storage=str(tmp_path / "file" / "runs")))


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_evaluators_that_no_node_has_room_for_are_refused_at_once() -> None:
    with pytest.raises(ClusterError, match=r"asks for 1000 CPU, but the largest node .* has 2 CPU"):
        connect(ClusterSpec(evaluator_cpus=1000))
    with pytest.raises(ClusterError, match=r"asks for 1 CPU and 0\.5 GPU"):
        connect(ClusterSpec(evaluator_gpus=0.5))


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray", "digits_task")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("cluster.evaluator_gpus=8", "asks for 1 CPU and 8 GPU, but the largest node"),
        ("cluster.storage=file", "cannot be written"),
    ],
)
def test_a_search_that_cannot_be_had_writes_nothing(
    change: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("spec.yaml").write_text("{task: {model: digits-net}, budgets: {flops: 0.5}}")
    result = CliRunner().invoke(app, ["search", "spec.yaml", "--set", change])
    assert result.exit_code == 2
    assert sentence in result.stderr.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"file", "spec.yaml"}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(not can_unshare(), reason="needs the right to mount")
def test_each_node_is_asked(ray_head: Head, tmp_path: Path) -> None:
    shared, apart, readable = (tmp_path / name for name in ("shared", "apart", "readable"))
    for folder in (shared, apart, readable):
        folder.mkdir()
    mounts = f"mount -t tmpfs none {apart} && mount --bind {readable} {readable}"
    mounts += f" && mount -o remount,ro,bind {readable}"
    script = (
        "import sys; from prunetune.cluster import *; from prunetune.errors import ClusterError\n"
        "for storage in sys.argv[2:]:\n"
        "    try: print(connect(ClusterSpec(address=sys.argv[1], storage=storage)).nodes)\n"
        "    except ClusterError as error: print(error)\n"
    )
    with started_node(ray_head, cpus=0, before=mounts):
        done = subprocess.run(
            [sys.executable, "-c", script, ray_head.address, shared, apart, readable],
            env=ray_head.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    works, not_shared, not_writable = done.stdout.splitlines()
    here = ray_head.address.partition(":")[0]
    assert works == "2"
    assert f"{str(apart)!r} is not shared: the node {here} does not see" in not_shared
    assert f"{str(readable)!r} cannot be written on the node {here} (" in not_writable
    assert "ead-only" in not_writable
    assert not any(path for folder in (shared, apart, readable) for path in folder.iterdir())
