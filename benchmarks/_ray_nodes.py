"""Ray nodes on this machine, for benchmarks and tests; their processes can be found and killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

RAY = Path(sys.executable).with_name("ray")
START_SECONDS = 120.0


@dataclass
class Nodes:
    """A head node and worker nodes, each as `ray start --block` makes it.

    Attributes:
        folder: Temporary, short: Ray's sockets do not take long paths.
        port: Of the head; the same whenever the head is started again.
    """

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="pt-nodes-")))
    port: int = field(default_factory=lambda: free_ports(1)[0])
    head: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _starts: int = 0

    @property
    def address(self) -> str:
        """``HOST:PORT`` of the cluster."""
        return f"127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Variables of every process of the cluster and of its drivers."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        quiet = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        # Ray would let its workers stand back behind everything else on the machine.
        quiet["RAY_worker_niceness"] = "0"
        # Nobody else shall find this cluster, and nobody needs a token to join it.
        own = {"RAY_TMPDIR": str(self.folder), "RAY_AUTH_MODE": "disabled"}
        return {**kept, **quiet, **own}

    def start_head(self, cpus: int) -> None:
        """Start the head node, whose temporary files are new each time."""
        self._starts += 1
        dashboard, *rest = free_ports(4)
        words = [f"--port={self.port}", f"--temp-dir={self.folder / str(self._starts)}", "--head"]
        words += [f"--dashboard-port={dashboard}", "--include-dashboard=false"]
        words += ["--node-ip-address=127.0.0.1"]
        self.head = start_node([*words, *node_words(rest, cpus)], self.environment())

    def add_worker(self, cpus: int) -> subprocess.Popen[bytes]:
        """Start another node."""
        words = [f"--address={self.address}", *node_words(free_ports(3), cpus)]
        node = start_node(words, self.environment())
        self.workers.append(node)
        return node

    def kill_worker(self, node: subprocess.Popen[bytes]) -> None:
        """End a node as a power cut does: all of its processes at once."""
        kill_tree(node.pid)
        node.wait()
        self.workers.remove(node)

    def kill_head(self) -> None:
        """End the head node, and with it the cluster."""
        assert self.head is not None
        kill_tree(self.head.pid)
        self.head.wait()
        self.head = None
        for node in list(self.workers):
            self.kill_worker(node)

    def pids(self, title: str | tuple[str, ...]) -> list[int]:
        """Processes of the nodes whose title begins so, such as ``ray::EvaluatorWorker``."""
        nodes = [node for node in (self.head, *self.workers) if node is not None]
        found = [pid for node in nodes for pid in descendants(node.pid)]
        return [pid for pid in found if process_title(pid).startswith(title)]

    def raylets(self, node: subprocess.Popen[bytes]) -> list[int]:
        """The raylet of a node."""
        return [pid for pid in descendants(node.pid) if "raylet/raylet" in process_title(pid)]

    def stop(self) -> None:
        """End everything and remove the temporary files."""
        for node in (self.head, *self.workers):
            if node is not None:
                kill_tree(node.pid)
                node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def start_node(
    words: Sequence[str], environment: Mapping[str, str], before: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """``ray start`` as users call it, waiting until the node is there.

    Args:
        words: What follows ``ray start``, ``--block`` among it; see `node_words`.
        environment: Variables of the node.
        before: A command that runs it, if any.

    Raises:
        RuntimeError: If it does not start; says what it printed. Nothing of it is left.
    """
    log = tempfile.TemporaryFile()
    node = subprocess.Popen(
        [*before, str(RAY), "start", *words], env=dict(environment), stdout=log, stderr=log
    )
    end = time.monotonic() + START_SECONDS
    while b"--block" not in (said := os.pread(log.fileno(), 1 << 20, 0)):
        if node.poll() is not None or time.monotonic() > end:
            kill_tree(node.pid)
            raise RuntimeError(f"a Ray node did not start: {said.decode()}")
        time.sleep(0.1)
    return node


def descendants(pid: int) -> list[int]:
    """All living processes below one, and itself, children before parents."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                # The name, in brackets, may itself hold spaces.
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found.extend(children.get(each, []))
    return found[::-1]


def kill_tree(pid: int) -> None:
    """SIGKILL a process and everything below it; the parent first, that it starts nothing anew."""
    for each in descendants(pid)[::-1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def process_title(pid: int) -> str:
    """Its command line, which Ray rewrites to say what it is; empty when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def node_words(ports: Sequence[int], cpus: int) -> list[str]:
    """What every ``ray start`` of ours says.

    Args:
        ports: Three free ones.
        cpus: Of the node.
    """
    names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
    words = [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    words += ["--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=150000000"]
    return [*words, f"--num-cpus={cpus}", "--disable-usage-stats", "--block"]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
