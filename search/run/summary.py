"""The summary of a run: what ``summary.json`` says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from ...errors import RunFolderError
from .folder import RunFolder

__all__ = ["Best", "Counts", "Dense", "Status", "Summary", "read_summary", "write_summary"]

Status = Literal["running", "interrupted", "failed", "incomplete", "finished"]


Count = Annotated[int, Field(ge=0, lt=2**63)]
"""Of things; what is larger is no count, and no number of floating point."""


class _Part(BaseModel):
    # A newer prunetune may say more; an older one still reads what it knows.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Dense(_Part):
    """The dense network.

    Attributes:
        validation: Accuracy on the validation images, fraction.
        test: Accuracy on the test images, once it was tested beside the finalists.
        flops: 2 x multiply-accumulates at batch 1.
        params: Learnable numbers.
        groups: Units of every channel group by name, in the order of decisions.
        measures: All measures of the dense network.
    """

    validation: float | None
    test: float | None = None
    flops: Count
    params: Count
    groups: dict[str, Count]
    measures: dict[str, float] = Field(default_factory=dict)


class Counts(_Part):
    """Evaluations of all trials.

    Attributes:
        asked: Candidates that searches asked for.
        unique: Candidates that were evaluated and are in the record, failed ones included.
        cached: Requests that the record answered.
        failed: Candidates among ``unique`` that could not be evaluated.
        per_second: ``unique`` over the seconds of searching, interruptions left out.
    """

    asked: Count = 0
    unique: Count = 0
    cached: Count = 0
    failed: Count = 0
    per_second: float = 0.0


class Best(_Part):
    """What a search ended with. Accuracies are fractions; without a network all are ``None``.

    Attributes:
        trial: The search's name; of a search over ranges of budgets, which delivers several
            networks, with the limits of this one.
        search: The name of that search; ``None`` where it is ``trial``.
        limits: What this network keeps as fractions of dense, where the search had ranges.
        reward: The reward's name.
        budget: The budgets as the user wrote them.
        agent: The agent's name.
        seed: Seeds the agent.
        evaluations: Candidates that the search asked for.
        feasible_candidates: How many of them kept all budgets.
        finalists: Candidates that were fully repaired, one of which is the best.
        stopped: Whether the comparison stopped it as hopeless.
        error: Why it ended early, or without a network.
        missing: What kept the network from being finished (repaired, fine-tuned and tested), which
            resuming the run tries again; the network is as far as it came.
        feasible: Whether the network keeps every budget.
        candidate: One whole number per decision; prunetune 0.1.0 wrote it as ``widths``.
        costs: Fractions of the dense network's cost, as the search knew them.
        measured: What budgets limit and only measurements tell, on the network as delivered:
            latency in seconds, activation memory in bytes, the user's own costs in their units.
        flops: 2 x multiply-accumulates at batch 1.
        params: Learnable numbers.
        search_reward: The reward that the search saw.
        found_after: Candidates that the search had asked for before this one.
        validation: Accuracy on the validation images after the repair.
        validation_after: The same after fine-tuning.
        test_before: Accuracy on the test images after the repair, before fine-tuning.
        test_after: The same after fine-tuning.
        finetune_epochs: Epochs of fine-tuning.
        artifact: Folder of the network, relative to the run folder.
        relative_errors: With the criterion ``pfp``, the relative error that each decision's value
            stands for; above 1 it promises nothing.
        notes: What else there is to say of this network, in sentences for people.
    """

    trial: str
    search: str | None = None
    limits: dict[str, float] = Field(default_factory=dict)
    reward: str
    budget: dict[str, float | str]
    agent: str
    seed: int
    evaluations: Count
    feasible_candidates: Count
    finalists: tuple[tuple[int, ...], ...] = ()
    stopped: bool = False
    error: str | None = None
    missing: str | None = None
    feasible: bool = False
    candidate: tuple[int, ...] | None = Field(
        default=None, validation_alias=AliasChoices("candidate", "widths")
    )
    costs: dict[str, float] | None = None
    measured: dict[str, float] = Field(default_factory=dict)
    flops: Count | None = None
    params: Count | None = None
    search_reward: float | None = None
    found_after: Count | None = None
    validation: float | None = None
    validation_after: float | None = None
    test_before: float | None = None
    test_after: float | None = None
    finetune_epochs: Count | None = None
    artifact: str | None = None
    relative_errors: dict[str, float] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def search_name(self) -> str:
        """The name of the search, under which its history is kept."""
        return self.search or self.trial


class Summary(_Part):
    """A whole run.

    Attributes:
        folder: The run folder.
        name: The spec's name.
        status: Whether it is running, interrupted, failed, incomplete (all searches have ended,
            and a network is not finished: resume it) or finished.
        task: The names of model and data.
        criterion: The criterion that ranked the channels.
        repair: How every candidate was repaired inside the search.
        precision: The number format of the evaluations.
        dense: The dense network.
        best: One network a search, in their order; complete when the run is finished.
        evaluations: Counts over all searches.
        wall_seconds: From the start to the end, interruptions left out.
        search_seconds: The part of it spent on searching.
        error: Why a failed run ended, or what is missing in an incomplete one.
        notes: What whoever reads the results has to know: what was given up, or changed.
        environment: Versions and hardware.
    """

    folder: Path = Field(exclude=True)
    name: str
    status: Status
    task: str
    criterion: str
    repair: str
    precision: str
    dense: Dense
    best: tuple[Best, ...] = ()
    evaluations: Counts = Counts()
    wall_seconds: float = 0.0
    search_seconds: float = 0.0
    error: str | None = None
    notes: tuple[str, ...] = ()
    environment: dict[str, Any] = Field(default_factory=dict)


def write_summary(folder: RunFolder, summary: Summary) -> None:
    """Write ``summary.json`` atomically; the folder gets today's layout with it.

    Raises:
        RunFolderError: If it cannot be written.
    """
    folder.raise_format()
    folder.write_json("summary.json", summary.model_dump(mode="json"))


def read_summary(folder: RunFolder) -> Summary | None:
    """What ``summary.json`` says, or ``None`` before there is one.

    Raises:
        RunFolderError: If it is damaged.
    """
    values = folder.read_summary()
    try:
        return Summary.model_validate({**values, "folder": folder.path}) if values else None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise RunFolderError(
            f"The file {folder.summary_path} is damaged (at {where}); restore it from a copy or "
            "run again."
        ) from None
