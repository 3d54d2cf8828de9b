"""Ray nodes started as users start them, with ports, temporary folder and home of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from _ray_nodes import RAY, START_SECONDS, free_ports, node_words, start_node


@dataclass(frozen=True)
class Head:
    """A running head node.

    Attributes:
        address: ``HOST:PORT`` of the cluster.
        dashboard: ``http://HOST:PORT``.
        home: The home folder of its processes; the token is in it.
    """

    address: str
    dashboard: str
    home: Path

    @property
    def token(self) -> str:
        """What nobody may ever see."""
        return (self.home / ".ray" / "auth_token").read_text().strip()

    def environment(self) -> dict[str, str]:
        """Variables of a process that has the cluster's token and is not on the cluster."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        path = f"{RAY.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        quiet = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "200"}
        # Ray would kill workers when anything else fills this machine's memory.
        quiet["RAY_memory_monitor_refresh_ms"] = "0"
        return {**inherited, **quiet, "HOME": str(self.home), "PATH": path}


@contextlib.contextmanager
def started_head(cpus: int) -> Iterator[Head]:
    """``ray start --head``, with a token, as on every machine that has run Ray 2.60 before."""
    # Not pytest's own folder: Ray's sockets do not take long paths.
    folder = Path(tempfile.mkdtemp(prefix="pt-ray-"))
    ports = free_ports(6)
    # Ray itself replaces 127.0.0.1 when a process joins.
    address = f"{ray.util.get_node_ip_address()}:{ports[0]}"
    head = Head(address, f"http://127.0.0.1:{ports[1]}", folder / "home")
    head.home.mkdir()
    subprocess.run(
        [RAY, "get-auth-token", "--generate"],
        env=head.environment(),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    words = [f"--port={ports[0]}", f"--dashboard-port={ports[1]}", f"--temp-dir={folder / 'ray'}"]
    words += [f"--ray-client-server-port={ports[2]}", "--head"]
    try:
        with _started([*words, *node_words(ports[3:], cpus)], head.environment()):
            _wait_for(ports[1])
            yield head
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def started_node(head: Head, cpus: int, before: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """``ray start --address`` on this machine, as another node.

    Args:
        head: Of the cluster to join.
        cpus: Of the node.
        before: Shell commands that are run first, in a mount namespace of the node's own.
    """
    words = [f"--address={head.address}", *node_words(free_ports(3), cpus)]
    inside = ["unshare", "--mount", "sh", "-c", f'{before} && exec "$@"', "sh"] if before else []
    # Unlike a head, a node sends a token only when it is told to.
    with _started(words, {**head.environment(), "RAY_AUTH_MODE": "token"}, inside) as node:
        yield node


def can_unshare() -> bool:
    """Whether a process here may have mounts of its own."""
    if shutil.which("unshare") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        mount = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", folder]
        return subprocess.run(mount, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def _started(
    words: Sequence[str], environment: dict[str, str], before: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    process = start_node(words, environment, before)
    try:
        yield process
    finally:
        # `--block` ends everything it has started when it is asked to end.
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.2)
    raise TimeoutError(f"nobody listens at port {port}")
