"""Jobs on a running cluster, through the address of its dashboard."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from ..errors import ClusterError
from .shipping import ShippedPath, ship
from .token import find_token, token_advice

__all__ = ["DEFAULT_ADDRESS", "Job", "JobRequest", "Jobs"]

DEFAULT_ADDRESS = "http://127.0.0.1:8265"

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Ray's own variable for the address of a dashboard."""

_RUN = "prunetune_run"
_FOLDER = "prunetune_folder"

_REACH_SECONDS = 5.0
_POLL_SECONDS = 0.5

# A run that is asked to stop writes a checkpoint first; Ray's default would be 3 seconds.
_STOP_SECONDS = 60

_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class JobRequest:
    """A run to submit.

    Attributes:
        run: Its name; a run is never submitted twice at the same time.
        folder: Its run folder on the cluster, a path or a URI.
        command: What the job executes in its working directory.
        paths: The user's files.
        texts: Files made for the job, content by name.
    """

    run: str
    folder: str
    command: str
    paths: list[ShippedPath]
    texts: Mapping[str, str]


@dataclass(frozen=True)
class Job:
    """A job as the cluster knows it.

    Attributes:
        name: Its submission id: ``RUN.1``, and after a run was submitted again ``RUN.2``, ...
        run: The run's name.
        folder: The run folder on the cluster.
        status: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``.
        message: What the cluster says about it.
        started: Seconds since 1970, or ``None``.
        ended: Seconds since 1970, or ``None``.
    """

    name: str
    run: str
    folder: str
    status: str
    message: str
    started: float | None
    ended: float | None

    @property
    def has_ended(self) -> bool:
        """Say whether it has ended for good."""
        return self.status in _ENDED

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


class Jobs:
    """The jobs of one cluster.

    Args:
        address: ``http://HOST:PORT`` of its dashboard; when left out, what the variable
            ``RAY_API_SERVER_ADDRESS`` says, or this machine's.

    Raises:
        ClusterError: If nothing answers there, it is no Ray cluster, or it refuses us.
    """

    def __init__(self, address: str | None = None) -> None:
        chosen = address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
        self.address = chosen.rstrip("/") if "://" in chosen else f"http://{chosen.rstrip('/')}"
        _check_reachable(self.address)
        self._client = self._connect()

    def submit(self, request: JobRequest) -> tuple[Job, bool]:
        """Start a run, or attach to it where it is on this cluster already.

        A run that failed or was stopped is started again, to resume in its folder.

        Args:
            request: The run.

        Returns:
            Its job, and whether it was there before.

        Raises:
            ClusterError: If the cluster does not take it.
        """
        earlier = [job for job in self._all() if job.run == request.run]
        latest = max(earlier, key=_attempt, default=None)
        if latest is not None and latest.status not in ("FAILED", "STOPPED"):
            return latest, True
        name = f"{request.run}.{1 if latest is None else _attempt(latest) + 1}"
        with tempfile.TemporaryDirectory(prefix="prunetune-") as folder:
            package = Path(folder) / "job.zip"
            ship(package, request.paths, request.texts)
            try:
                self._call(
                    self._client.submit_job,
                    entrypoint=request.command,
                    submission_id=name,
                    metadata={_RUN: request.run, _FOLDER: request.folder},
                    runtime_env={
                        "working_dir": str(package),
                        "env_vars": {
                            "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS),
                            # Relative paths of the spec start from the working directory.
                            "RAY_CHDIR_TO_TRIAL_DIR": "0",
                        },
                    },
                )
            except ClusterError:
                # Somebody else may have submitted the same run at the same time.
                if any(job.name == name for job in self._all()):
                    return self.find(name), True
                raise
        return self.find(name), False

    def find(self, name: str) -> Job:
        """Find a job by its name, or the latest job of a run by the run's name or folder.

        Raises:
            ClusterError: If there is none.
        """
        jobs = self._all()
        wanted = name.rstrip("/")
        found = [
            job
            for job in jobs
            if wanted in (job.name, job.run, job.folder)
            or job.folder.partition("?")[0].endswith(f"/{wanted}")
        ]
        if not found:
            known = ", ".join(job.name for job in jobs[-5:]) or "none"
            raise ClusterError(
                f"The cluster at {self.address} has no job of a run {name!r}; its latest jobs of "
                f"prunetune are: {known}."
            )
        return max(found, key=_attempt)

    def logs(self, job: Job) -> str:
        """Return everything that a job has printed so far."""
        return str(self._call(self._client.get_job_logs, job.name))

    def follow(self, job: Job, show: Callable[[str], None]) -> Job:
        """Show what a job prints until it ends.

        Args:
            job: The job.
            show: Receives the text, in parts.

        Returns:
            The job when it has ended.
        """

        async def tail() -> None:
            async for part in self._client.tail_job_logs(job.name):
                if part:
                    show(part)

        self._call(lambda: asyncio.run(tail()))
        return self._wait(job)

    def stop(self, job: Job) -> Job:
        """Ask a job to end as Ctrl-C does, and wait until it has. One that has ended stays.

        Raises:
            ClusterError: If it does not end.
        """
        if not job.has_ended:
            self._call(self._client.stop_job, job.name)
        return self._wait(job)

    def _wait(self, job: Job) -> Job:
        end = time.monotonic() + 2 * _STOP_SECONDS
        while time.monotonic() < end:
            now = self.find(job.name)
            if now.has_ended:
                return now
            time.sleep(_POLL_SECONDS)
        raise ClusterError(
            f"The job {job.name} is still {now.status} after {2 * _STOP_SECONDS} seconds; look at "
            f"it in the dashboard at {self.address}."
        )

    def _all(self) -> list[Job]:
        """Return our jobs, the oldest first."""
        found = []
        for details in self._call(self._client.list_jobs):
            metadata = details.metadata or {}
            if details.submission_id is None or _RUN not in metadata:
                continue
            found.append(
                Job(
                    name=details.submission_id,
                    run=metadata[_RUN],
                    folder=metadata.get(_FOLDER, ""),
                    status=str(getattr(details.status, "value", details.status)),
                    message=details.message or "",
                    started=_seconds(details.start_time),
                    ended=_seconds(details.end_time),
                )
            )
        return sorted(found, key=lambda job: job.started or 0.0)

    # --- talking to Ray ---------------------------------------------------------------------

    def _connect(self) -> Any:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        # Ray would note every upload on the terminal.
        for name in ("dashboard_sdk", "job.sdk"):
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)

        def client(headers: dict[str, str]) -> Any:
            with _only_address(self.address):
                connected = JobSubmissionClient(self.address, headers=headers)
                connected.list_jobs()
            return connected

        try:
            return client({})
        except AuthenticationError:
            token = find_token()
            if token is None:
                raise ClusterError(token_advice(self.address)) from None
        except Exception as error:
            self._no_cluster(error)
        try:
            return client({"Authorization": f"Bearer {token}"})
        except AuthenticationError:
            raise ClusterError(token_advice(self.address)) from None
        except Exception as error:
            self._no_cluster(error)

    def _no_cluster(self, error: Exception) -> NoReturn:
        raise ClusterError(
            f"What answers at {self.address} is not the dashboard of a Ray cluster that takes jobs "
            f"({_reason(error)}); check the address, which is usually http://HOST:8265."
        ) from None

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise ClusterError(
                f"The Ray cluster at {self.address} did not do what it was asked "
                f"({_reason(error)}); look at its dashboard."
            ) from None


def _check_reachable(address: str) -> None:
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in ("http", "https") or not host:
        raise ClusterError(
            f"The address {address!r} is not that of a dashboard; give http://HOST:8265."
        )
    port = port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise ClusterError(
            f"No Ray cluster answers at {address} ({_reason(error)}); check --address and that the "
            "dashboard's port can be reached from this machine."
        ) from None


@contextlib.contextmanager
def _only_address(address: str) -> Iterator[None]:
    """Hide Ray's variables, which it would prefer to the address that it is given."""
    before = os.environ.get(ADDRESS_VARIABLE)
    os.environ[ADDRESS_VARIABLE] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[ADDRESS_VARIABLE]
        else:
            os.environ[ADDRESS_VARIABLE] = before


def _attempt(job: Job) -> int:
    return int(job.name.rpartition(".")[2])


def _seconds(milliseconds: float | None) -> float | None:
    return None if not milliseconds else milliseconds / 1000


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
