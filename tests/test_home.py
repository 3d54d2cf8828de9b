"""Processes without a home, with one that cannot be written, or with a cache that cannot."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import prunetune
import pytest
from prunetune._home import private_folder, provide_home, writable
from prunetune.cluster.token import provide_token
from prunetune.models.cache import cache_folder

_ROOT = os.getuid() == 0


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of this process."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for name in ("PRUNETUNE_CACHE", "MPLCONFIGDIR", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.mark.parametrize("home", ["/nonexistent/home", "relative"])
def test_who_has_no_home_gets_a_private_one(
    home: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    provide_home()
    assert Path.home().parent == temporary
    assert stat.S_IMODE(Path.home().stat().st_mode) == 0o700
    assert cache_folder() == Path.home() / ".cache" / "prunetune"


def test_an_empty_variable_is_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    usual = Path.home()
    monkeypatch.setenv("HOME", "")
    provide_home()
    assert Path.home() == usual


def test_a_home_that_is_there_stays(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    provide_home()
    assert Path.home() == tmp_path and not list(temporary.iterdir())
    assert cache_folder() == tmp_path / ".cache" / "prunetune"


def test_what_others_prepared_in_the_temporary_folder_is_not_used(temporary: Path) -> None:
    name = f"prunetune-{os.getuid()}"
    mine = temporary / "mine"
    mine.mkdir(mode=0o700)
    (temporary / name).symlink_to(mine)
    assert private_folder() not in (mine, temporary / name)
    (temporary / name).unlink()
    (temporary / name).mkdir()
    (temporary / name).chmod(0o777)
    assert private_folder() != temporary / name


def test_a_folder_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert writable(tmp_path / "a" / "b") and not writable(tmp_path / "file" / "b")


def test_without_a_place_for_it_the_token_stays_in_the_environment(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    provide_token()
    assert "RAY_AUTH_TOKEN" not in os.environ, "Ray keeps its own"
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    provide_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    # A cache has no place there either.
    assert cache_folder() == private_folder() / "cache"


_SPEC = """
task: {model: digits-net, training: {epochs: 1}}
budgets: {flops: 0.9}
agent: {name: random, parameters: {candidates: 4}}
evaluations: 4
finetune: {epochs: 0}
finalists: 1
measures: [accuracy]
"""


@pytest.mark.slow
@pytest.mark.skipif(not _ROOT or shutil.which("setpriv") is None, reason="becomes another user")
@pytest.mark.parametrize("home", [None, "/"])
def test_a_user_without_entry_and_home_runs_a_search(home: str | None) -> None:
    """Ray and all; the other user may read everything, so that Python is found."""
    with tempfile.TemporaryDirectory(prefix="pt") as folder:
        Path(folder).chmod(0o777)
        (Path(folder) / "spec.yaml").write_text(_SPEC)
        user = ["--reuid", "54321", "--regid", "54321", "--clear-groups"]
        user += ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")}
        kept.setdefault("PYTHONPATH", str(Path(prunetune.__path__[0]).parent))
        kept |= {"TMPDIR": folder, "OMP_NUM_THREADS": "1"} | ({"HOME": home} if home else {})
        command = [sys.executable, "-m", "prunetune", "search", "spec.yaml", "--output", "run"]
        ended = subprocess.run(
            ["setpriv", *user, *command],
            cwd=folder,
            env=kept,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr and "matplotlib" not in ended.stderr.lower()
        assert (Path(folder) / "run" / "report" / "index.html").is_file()
