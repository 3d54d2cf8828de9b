"""What a run notes of the machine it ran on, so that its numbers can be understood later."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

_PACKAGES = (
    "prunetune",
    "ray",
    "torch",
    "torchvision",
    "numpy",
    "pyarrow",
    "gymnasium",
    "pydantic",
    "optuna",
    "cmaes",
    "safetensors",
    "scikit-learn",
)


def describe_environment() -> dict[str, Any]:
    """Versions and hardware.

    Returns:
        ``python``, ``platform``, ``cpu`` (model name), ``cpus`` (usable), ``memory_gib``, and
        ``packages`` (name to version, or ``None`` where it is not installed).
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpus": _usable_cpus(),
        "memory_gib": _memory_gib(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _usable_cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _memory_gib() -> float | None:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # not known here
        return None
    return round(total / 1024**3, 1)
