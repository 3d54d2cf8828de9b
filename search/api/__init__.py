"""What a notebook writes: a task, a run of it, and what came out; offered as ``prunetune.NAME``."""
