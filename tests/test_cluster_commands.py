"""Commands for clusters: every mistake is one sentence and exit code 2, before anything is sent."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prunetune.search.run.folder import RunFolder

from .commands import assert_one_sentence, invoke

_SPEC: dict[str, Any] = {
    "task": {"model": "digits-net", "data": "digits"},
    "budgets": {"flops": 0.5},
    "agent": "random",
    "evaluations": 8,
}


def _write(folder: Path, **changes: Any) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({**_SPEC, **changes}))
    return path


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address of this machine where nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


@pytest.fixture
def web_page() -> Iterator[str]:
    """The address of a web server that is no dashboard."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("command", ["submit", "status", "logs", "stop", "kuberay"])
def test_help_has_an_example(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"Example: prunetune {command}" in " ".join(result.output.split())


@pytest.mark.parametrize("command", ["submit search SPEC", "status x", "logs x", "stop x"])
def test_addresses_that_do_not_work(
    command: str, silent_address: str, web_page: str, tmp_path: Path
) -> None:
    words = command.replace("SPEC", str(_write(tmp_path))).split()
    refused = invoke(*words, "--address", silent_address)
    assert_one_sentence(refused, f"No Ray cluster answers at {silent_address}", "--address")
    assert_one_sentence(invoke(*words, "--address", web_page), "not the dashboard", web_page)
    assert_one_sentence(invoke(*words, "--address", "ray://head:10001"), "give http://HOST:8265")


def test_the_address_comes_from_rays_own_variable(
    silent_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", silent_address)
    assert_one_sentence(invoke("status", "x"), silent_address)
    assert_one_sentence(invoke("status", "x", "--address", "host.invalid:1"), "host.invalid")


def test_too_large_a_working_directory(silent_address: str, tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    with (tmp_path / "cifar10" / "train.parquet").open("wb") as file:
        file.truncate(300 * 1024**2)
    spec = _write(tmp_path, task={"model": "resnet20", "data": "parquet:cifar10"})
    result = invoke("submit", "search", spec, "--address", silent_address)
    assert_one_sentence(result, "'cifar10' (300.0 MiB)", "absolute path")


def test_a_spec_that_is_wrong_is_not_submitted(silent_address: str, tmp_path: Path) -> None:
    spec = _write(tmp_path, evaluatoins=3)
    assert_one_sentence(
        invoke("submit", "search", spec, "--address", silent_address), "evaluatoins"
    )


@pytest.mark.parametrize("command", ["resume", "report", "status"])
def test_the_run_of_a_newer_version(command: str, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", _SPEC)
    marker = run.path / "prunetune-run.json"
    newer = {**json.loads(marker.read_text()), "format": 99, "prunetune": "9.0"}
    marker.write_text(json.dumps(newer))
    assert_one_sentence(invoke(command, run.path), "prunetune 9.0", "upgrade")


def test_a_run_at_a_uri_that_is_not_there(tmp_path: Path) -> None:
    for command in ("resume", "report"):
        assert_one_sentence(invoke(command, f"file://{tmp_path}/none"), "There is no run at")


def test_status_of_a_run_folder(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", _SPEC)
    facts = json.loads(invoke("status", run.path, "--json").stdout)
    assert facts == {"folder": str(run.path), "status": "running"}


def test_resume_needs_a_folder(tmp_path: Path) -> None:
    assert_one_sentence(invoke("search", _write(tmp_path), "--resume"), "--output")


def test_a_manifest_for_kubernetes(tmp_path: Path) -> None:
    spec = _write(tmp_path, cluster={"storage": "s3://bucket/runs"}, compare={"seeds": 2})
    result = invoke("kuberay", spec, "--image", "registry/prunetune:1", "--workers", 2)
    assert result.exit_code == 0, result.output
    config, job = yaml.safe_load_all(result.stdout)
    assert yaml.safe_load(next(iter(config["data"].values())))["compare"]["seeds"] == 2
    command = job["spec"]["entrypoint"].split()
    assert command[:3] == ["prunetune", "compare", "/etc/prunetune/spec.yaml"]
    assert command[-1] == "--resume", "a new cluster continues the run"
    refused = invoke("kuberay", _write(tmp_path), "--image", "registry/prunetune:1")
    assert_one_sentence(refused, "cluster.storage")
