"""Connecting: addresses that do not work are one sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pydantic
import pytest
from prunetune.cluster import ClusterSpec
from prunetune.cluster.connect import available_cpus


def in_new_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Ray connects once per process, so each connection gets its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def refusal(address: str) -> str:
    finished = in_new_process(
        "from prunetune.cluster import *\n"
        "from prunetune.errors import ClusterError\n"
        f"try:\n    connect(ClusterSpec(address={address!r}))\n"
        "except ClusterError as error:\n    print(error)"
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_a_spec_is_checked() -> None:
    assert ClusterSpec().evaluators == "auto"
    for wrong in ({"evaluators": 0}, {"evaluators": "many"}, {"evaluator_cpus": 0}, {"cpu": 1}):
        with pytest.raises(pydantic.ValidationError):
            ClusterSpec.model_validate(wrong)


def test_at_least_one_cpu_is_available() -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


def test_an_address_where_nobody_listens_is_one_sentence() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        for form in (address, f"ray://{address}"):
            message = refusal(form)
            assert f"No Ray cluster answers at {form!r}" in message
            assert message.count("\n") == 1


def test_an_address_that_is_none_is_one_sentence() -> None:
    assert "is not HOST:PORT" in refusal("my-cluster")


@pytest.mark.slow
@pytest.mark.ray
def test_a_local_cluster_starts_quietly_and_is_joined_by_a_second_call() -> None:
    finished = in_new_process(
        "from prunetune.cluster import *\n"
        "first = connect(ClusterSpec())\n"
        "assert first.local and first.nodes == 1 and first.cpus >= 1, first\n"
        "assert connect(ClusterSpec()).address == first.address\n"
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""
    assert "Started a local Ray instance" not in finished.stderr
    assert "oken" not in finished.stderr
