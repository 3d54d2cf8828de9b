"""Where run folders are kept: a folder that all nodes share, or a URI; checked before the start."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs

from ..errors import ClusterError

__all__ = ["below", "check_storage", "is_uri", "open_storage"]

# A node that is this slow to write a few bytes cannot keep a run.
_PROBE_SECONDS = 120.0

_ADVICE = "choose a folder that every node mounts at the same path, or a URI such as s3://..."


def is_uri(storage: str) -> bool:
    """Say whether ``storage`` is a URI rather than a path."""
    return "://" in storage


def below(storage: str, name: str) -> str:
    """Join a path or URI and a name; options of a URI (``?endpoint_override=...``) stay last."""
    base, mark, options = storage.partition("?") if is_uri(storage) else (storage, "", "")
    return f"{base.rstrip('/')}/{name}{mark}{options}"


def open_storage(storage: str) -> tuple[Any, str]:
    """Open the file system of a path or URI, as Ray Tune does with its ``storage_path``.

    Args:
        storage: A path, or a URI that pyarrow knows (``file``, ``s3``, ``gs``, ``hdfs``, ``abfs``).

    Returns:
        A ``pyarrow.fs.FileSystem`` and the path in it.

    Raises:
        ClusterError: If there is no such kind of storage.
    """
    location = storage if is_uri(storage) else str(Path(storage).expanduser().absolute())
    try:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(location)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ClusterError(
            f"The storage {storage!r} cannot be opened ({_reason(error)}); give a path, or a URI "
            "that pyarrow knows, such as s3://BUCKET/PREFIX."
        ) from None
    return filesystem, path


@dataclass(frozen=True)
class _Probe:
    """Files by which nodes see whether they share a storage.

    Attributes:
        storage: As the user wrote it, with ``~`` replaced.
        folder: Name of the probe's own folder in it.
    """

    storage: str
    folder: str

    def write(self, name: str) -> str | None:
        """Write a file, and return why that failed, or ``None``."""
        try:
            filesystem, path = open_storage(self.storage)
            filesystem.create_dir(f"{path}/{self.folder}", recursive=True)
            with filesystem.open_output_stream(f"{path}/{self.folder}/{name}") as file:
                file.write(name.encode())
        except (ClusterError, pa.ArrowException, OSError) as error:
            return _reason(error)
        return None

    def sees(self, name: str) -> bool:
        """Say whether a file is there."""
        try:
            filesystem, path = open_storage(self.storage)
            with filesystem.open_input_stream(f"{path}/{self.folder}/{name}") as file:
                return bool(file.read() == name.encode())
        except (ClusterError, pa.ArrowException, OSError):
            return False

    def remove(self) -> None:
        """Remove the files, where that is possible."""
        try:
            filesystem, path = open_storage(self.storage)
            filesystem.delete_dir(f"{path}/{self.folder}")
        except (ClusterError, pa.ArrowException, OSError):
            pass


_DRIVER = "driver"


def _probe_from_node(probe: _Probe, name: str) -> tuple[bool, str | None]:
    """Whether this node sees what the driver wrote, and if so, why it cannot write there."""
    sees = probe.sees(_DRIVER)
    # A node that does not share the storage would make a folder that nobody clears away.
    return sees, probe.write(name) if sees else None


def check_storage(storage: str) -> None:
    """Write to a storage from every node of the connected cluster, and read it back.

    Args:
        storage: A path or URI; see `open_storage`.

    Raises:
        ClusterError: If it cannot be opened, a node cannot write there, or the nodes do not share
            it. Nothing of the probe is left.
    """
    import ray

    open_storage(storage)
    resolved = storage if is_uri(storage) else str(Path(storage).expanduser().absolute())
    probe = _Probe(resolved, f".prunetune-probe-{uuid.uuid4().hex[:12]}")
    failure = probe.write(_DRIVER)
    if failure is not None:
        raise ClusterError(
            f"The storage {storage!r} cannot be written ({failure}); make it writable, or choose "
            "another cluster.storage."
        )
    try:
        nodes = {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]}
        answers = _ask_nodes(probe, nodes)
        for node, address in nodes.items():
            if node not in answers:
                continue  # it has left the cluster meanwhile
            sees, failure = answers[node]
            if failure is not None:
                raise ClusterError(
                    f"The storage {storage!r} cannot be written on the node {address} ({failure}); "
                    f"{_ADVICE}."
                )
            if not sees or not probe.sees(node):
                raise ClusterError(
                    f"The storage {storage!r} is not shared: the node {address} does not see what "
                    f"the driver wrote there; {_ADVICE}."
                )
    finally:
        probe.remove()


def _ask_nodes(probe: _Probe, nodes: dict[str, str]) -> dict[str, tuple[bool, str | None]]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(_probe_from_node)
    asked = {
        task.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote(probe, node): node
        for node in nodes
    }
    _, late = ray.wait(list(asked), num_returns=len(asked), timeout=_PROBE_SECONDS)
    if late:
        raise ClusterError(
            f"The node {nodes[asked[late[0]]]} did not write to the storage {probe.storage!r} "
            f"within {_PROBE_SECONDS:g} seconds; check its network and mounts."
        )
    answers = {}
    for reference, node in asked.items():
        try:
            answers[node] = ray.get(reference)
        except ray.exceptions.RayError as error:
            if any(each["NodeID"] == node and each["Alive"] for each in ray.nodes()):
                raise ClusterError(
                    f"The node {nodes[node]} cannot check the storage {probe.storage!r} "
                    f"({_reason(error)}); check that it has the same packages as the driver."
                ) from None
    return answers


def _reason(error: BaseException) -> str:
    """Return the first line of a message, without pyarrow's repetition of the path."""
    strerror = getattr(error, "strerror", None)
    text = strerror or str(error) or type(error).__name__
    return str(text).strip().splitlines()[0].rstrip(".")
