"""A run becomes a KubeRay ``RayJob``: its cluster starts for the run and goes away after it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from ..errors import ClusterError
from .shipping import ShippedPath
from .storage import is_uri

__all__ = ["JOB_FOLDER", "RayJobPods", "rayjob_manifest"]

JOB_FOLDER = "/etc/prunetune"
"""Where the spec and the user's files are in every pod."""

# Kubernetes refuses larger ConfigMaps.
_CONFIG_BYTES = 1024**2

# KubeRay derives the names of pods and services, at most 63 characters, from that of the job.
_NAME_LENGTH = 47

_FILES = "prunetune-files"
_DATA = "prunetune-data"


@dataclass(frozen=True)
class RayJobPods:
    """The pods of a run.

    Attributes:
        image: With Ray, prunetune and their dependencies.
        workers: Pods that evaluate, >= 1, besides the head.
        cpus: CPUs of a pod, >= 1.
        memory: Of a pod, as Kubernetes writes it.
        gpus: GPUs of a worker.
        claim: ``NAME:/PATH``, a PersistentVolumeClaim and where every pod mounts it; it must allow
            access from many nodes where the pods are on many.
        retries: How often a new cluster continues a run whose cluster was lost.
    """

    image: str
    workers: int = 1
    cpus: int = 4
    memory: str = "8Gi"
    gpus: int = 0
    claim: str | None = None
    retries: int = 3


def rayjob_manifest(
    run: str,
    command: str,
    storage: str | None,
    pods: RayJobPods,
    paths: list[ShippedPath],
    texts: Mapping[str, str],
) -> str:
    """Write the YAML of a ConfigMap with the files, and of a RayJob of the operator's ray.io/v1.

    Args:
        run: Name of the run.
        command: What the head executes; it must continue the run if there is one.
        storage: Where the run folder is kept; must outlive the pods.
        pods: The pods.
        paths: The user's files, mounted below `JOB_FOLDER`.
        texts: Files made for the job, content by name, mounted there too.

    Raises:
        ClusterError: If the run folder would be lost with the pods, or the files are too large.
    """
    mount = None if pods.claim is None else _mount(pods.claim)
    _check_storage(storage, mount)
    name = _name(run)
    config, items = _config_map(name, paths, texts)
    from ray import __version__ as ray_version

    head = _pod("ray-head", pods, items, name, gpus=0)
    worker = _pod("ray-worker", pods, items, name, gpus=pods.gpus)
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": command,
            "backoffLimit": pods.retries,
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": {
                "rayVersion": ray_version,
                "authOptions": {"mode": "token"},
                "headGroupSpec": {
                    # Evaluators belong on the workers; driver and agents need no reserved CPU.
                    "rayStartParams": {"num-cpus": "0"},
                    "template": head,
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "evaluators",
                        "replicas": pods.workers,
                        "minReplicas": pods.workers,
                        "maxReplicas": pods.workers,
                        "rayStartParams": {},
                        "template": worker,
                    }
                ],
            },
        },
    }
    return yaml.safe_dump_all([config, job], sort_keys=False, allow_unicode=True)


def _check_storage(storage: str | None, mount: str | None) -> None:
    if storage is None:
        raise ClusterError(
            "A run on Kubernetes loses its folder with its pods; set cluster.storage to a URI, or "
            "to a path on a volume that --claim mounts."
        )
    if is_uri(storage):
        return
    if mount is None or not PurePosixPath(storage).is_relative_to(mount):
        raise ClusterError(
            f"The storage {storage!r} is not on a volume of the pods; mount one there with --claim "
            "NAME:/PATH, or set cluster.storage to a URI."
        )


def _mount(claim: str) -> str:
    name, colon, path = claim.partition(":")
    if not colon or not name or not path.startswith("/"):
        raise ClusterError(f"The claim {claim!r} is not NAME:/PATH, such as shared-disk:/shared.")
    return path


def _name(run: str) -> str:
    """Return the run's name as Kubernetes accepts it; its digest at the end stays."""
    return re.sub(r"[^a-z0-9]+", "-", run.lower())[-_NAME_LENGTH:].strip("-")


def _config_map(
    name: str, paths: list[ShippedPath], texts: Mapping[str, str]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    contents = {file: source.read_bytes() for path in paths for file, source in path.files()}
    contents |= {file: text.encode() for file, text in texts.items()}
    size = sum(len(base64.b64encode(content)) for content in contents.values())
    if size > _CONFIG_BYTES:
        largest = max(contents, key=lambda file: len(contents[file]))
        raise ClusterError(
            f"The files of this run have {size / 1024**2:.1f} MiB, and Kubernetes takes 1 MiB in a "
            f"ConfigMap; put the largest, {PurePosixPath(largest).name}, on the storage and name "
            "it in the spec by its absolute path there."
        )
    data: dict[str, dict[str, str]] = {"data": {}, "binaryData": {}}
    items = []
    for number, (file, content) in enumerate(sorted(contents.items())):
        # Keys may hold no slash; the volume gives files their names back.
        key = f"{number}-{re.sub(r'[^-._a-zA-Z0-9]', '_', PurePosixPath(file).name)}"
        try:
            data["data"][key] = content.decode()
        except UnicodeDecodeError:
            data["binaryData"][key] = base64.b64encode(content).decode()
        items.append({"key": key, "path": file})
    filled = {kind: values for kind, values in data.items() if values}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **filled}
    return config, items


def _pod(
    container: str, pods: RayJobPods, items: list[dict[str, str]], name: str, gpus: int
) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": _FILES, "configMap": {"name": name, "items": items}},
    ]
    mounts = [{"name": _FILES, "mountPath": JOB_FOLDER}]
    if pods.claim is not None:
        claim = {"claimName": pods.claim.partition(":")[0]}
        volumes.append({"name": _DATA, "persistentVolumeClaim": claim})
        mounts.append({"name": _DATA, "mountPath": _mount(pods.claim)})
    resources = {"cpu": str(pods.cpus), "memory": pods.memory}
    if gpus:
        resources["nvidia.com/gpu"] = str(gpus)
    return {
        "spec": {
            "containers": [
                {
                    "name": container,
                    "image": pods.image,
                    "resources": {"requests": resources, "limits": dict(resources)},
                    "volumeMounts": mounts,
                }
            ],
            "volumes": volumes,
        }
    }
