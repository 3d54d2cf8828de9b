"""Change inputs that others may have written, thousands of times, and see what reading them does.

For every kind of input (specs, records, histories, whole runs, checkpoints, weights, artifacts,
images) an intact one is written, and copies of it are changed: bits flipped, parts cut out or put
twice, files swapped, replaced by links, pipes and folders, values of other types, huge, not finite,
of odd text, leading out of the folder or to code. Where a format has a checksum it is made anew for
some, as one who knows the format would. A child process with bounded memory reads them one after
the other, as the product does. What may come of an input: it is accepted, or refused in one
sentence. What must not: another exception, more than ten seconds, the end of the process, a
checkpoint or an artifact that is accepted with other content than was written, code that runs, or a
file outside of the folder that is opened.

Every input is a function of the kind, the seed and its number: ``--kind history --number 17``
repeats one and shows its traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

_LIMIT_SECONDS = 10.0
_MEMORY = 3 * 2**30
_BAD = ("traceback", "hang", "died", "other", "outside")
_SHARES = {"images": 0.5, "artifact": 0.7, "run": 0.8}


class _Child:
    """One process that reads many inputs of a kind, so that it imports once."""

    def __init__(self, kind: str, seed: int) -> None:
        command = [sys.executable, __file__, "--child", kind, "--seed", str(seed)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.ready = self._answer(300.0) is not None

    def read(self, number: int) -> dict[str, Any]:
        """What came of one input."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{number}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"outcome": "died"}
        answer = self._answer(_LIMIT_SECONDS)
        return {"outcome": "hang"} if answer is None else answer

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"outcome": "died"}

    def end(self) -> None:
        """Stop it, whatever it is doing."""
        self._process.kill()
        self._process.wait()


def _fuzz(kind: str, numbers: range, seed: int) -> tuple[Counter[str], list[dict[str, Any]], int]:
    """Outcomes, the bad ones, and the most memory in kB that a child took."""
    outcomes: Counter[str] = Counter()
    bad: list[dict[str, Any]] = []
    memory = 0
    child = _Child(kind, seed)
    for number in numbers:
        answer = child.read(number)
        outcomes[answer["outcome"]] += 1
        memory = max(memory, answer.get("memory", 0))
        if answer["outcome"] in _BAD:
            bad.append({"kind": kind, "number": number, **answer})
        if answer["outcome"] in ("hang", "died"):
            child.end()
            child = _Child(kind, seed)
    child.end()
    return outcomes, bad, memory


# --- the child ----------------------------------------------------------------------------------


class _Sandbox:
    """The folders of one child, and what was done outside of them."""

    def __init__(self, kind: str, seed: int, folder: Path) -> None:
        from _fuzz_targets import TARGETS

        self._target, self._kind, self._seed = TARGETS[kind], kind, seed
        self._intact, self._work = folder / "intact", folder / "deep" / "work"
        self._outside = folder / "deep" / "outside"
        for each in (self._intact, self._outside):
            each.mkdir(parents=True)
        (self._outside / "secret").write_text('{"format": 1, "secret": "secret"}')
        (self._outside / "trap.py").write_text(
            "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nMine = None\n"
        )
        os.environ["HOME"] = str(self._outside)
        os.chdir(self._outside)
        self._target.make(self._intact)
        self._expected = self._target.read(self._intact)
        self.touched: list[str] = []
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path.startswith(str(self._outside)):
                self.touched.append(path)
        elif event in ("os.system", "subprocess.Popen", "os.exec"):
            self.touched.append(event)

    def read(self, number: int) -> dict[str, Any]:
        """Change and read one input."""
        from _fuzz_targets import copied, mutate
        from prunetune.errors import PruneTuneError

        rng = random.Random(f"{self._kind} {self._seed} {number}")
        copied(self._intact, self._work)
        mutate(self._work, self._outside, rng)
        self.touched.clear()
        answer: dict[str, Any] = {"outcome": "accepted"}
        try:
            found = self._target.read(self._work)
            if self._target.checked and found is not None and not _equal(found, self._expected):
                answer = {"outcome": "other"}
        except PruneTuneError as error:
            answer = {"outcome": "refused", "said": str(error)[:300]}
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            said = f"{type(error).__name__}: {str(error)[:200]} ({where})"
            answer = {"outcome": "traceback", "said": said, "trace": traceback.format_exc()[-6000:]}
        ran = (self._outside / "ran").exists()
        if self._target.closed and (self.touched or ran):
            (self._outside / "ran").unlink(missing_ok=True)
            answer = {"outcome": "outside", "said": str(self.touched[:3])}
        answer["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return answer


def _equal(found: Any, expected: Any) -> bool:
    import torch

    if isinstance(expected, torch.Tensor):
        return torch.allclose(found, expected, atol=1e-5)
    return bool(found == expected)


def _child(kind: str, seed: int, numbers: Any, answers: Any) -> None:
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        sandbox = _Sandbox(kind, seed, Path(folder).resolve())
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
        print(json.dumps({"outcome": "ready"}), file=answers, flush=True)
        for line in numbers:
            print(json.dumps(sandbox.read(int(line))), file=answers, flush=True)


# --- the driver ---------------------------------------------------------------------------------


def main() -> None:
    """Run all kinds, print a table, the worst of each, and one line of JSON."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--inputs", type=int, default=1600, help="of each kind; slow kinds less")
    options.add_argument("--kind", help="only this one")
    options.add_argument("--number", type=int, help="only this one, with its traceback")
    options.add_argument("--smoke", action="store_true", help="six inputs of each kind")
    options.add_argument("--child", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        answers = os.fdopen(os.dup(1), "w")
        # What a library prints is no answer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _child(chosen.child, chosen.seed, sys.stdin, answers)
        return
    if chosen.number is not None:
        child = _Child(chosen.kind, chosen.seed)
        answer = child.read(chosen.number)
        child.end()
        print(answer.pop("trace", ""), json.dumps(answer, indent=2), sep="\n")
        return

    from _common import print_result, print_table
    from _fuzz_targets import TARGETS

    began = time.monotonic()
    inputs = 6 if chosen.smoke else chosen.inputs
    rows, counts, worst = [], {}, []
    for kind in [chosen.kind] if chosen.kind else TARGETS:
        numbers = range(max(1, int(inputs * _SHARES.get(kind, 1.0))))
        outcomes, bad, memory = _fuzz(kind, numbers, chosen.seed)
        columns = ("refused", "accepted", *_BAD)
        counts[kind] = {"inputs": len(numbers), **{name: outcomes[name] for name in columns}}
        rows.append((kind, *counts[kind].values(), memory // 1024))
        worst += bad
    headings = ("kind", "inputs", "refused", "accepted", *_BAD, "MB at most")
    print_table(f"Changed inputs, seed {chosen.seed}", headings, rows)
    kinds = Counter((each["kind"], each["outcome"], each.get("said", "")) for each in worst)
    for (kind, outcome, said), count in kinds.most_common(40):
        first = next(
            e
            for e in worst
            if (e["kind"], e["outcome"], e.get("said", "")) == (kind, outcome, said)
        )
        print(f"{count} x {kind} {outcome}, first number {first['number']}: {said}")
    print_result(
        "fuzz",
        seed=chosen.seed,
        inputs=sum(each["inputs"] for each in counts.values()),
        bad=len(worst),
        kinds=counts,
        seconds=time.monotonic() - began,
    )


if __name__ == "__main__":
    main()
