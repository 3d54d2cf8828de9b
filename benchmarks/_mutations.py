"""Inputs as disks, people and attackers change them: of bytes, of values, of names and of files."""

from __future__ import annotations

import copy
import json
import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

__all__ = ["change_bytes", "change_file", "change_text", "odd_values"]


def change_bytes(content: bytes, rng: random.Random) -> bytes:
    """One fault of a disk or a transfer."""
    size = len(content)
    kind = rng.randrange(7)
    if kind == 0 or not size:
        return b"" if rng.random() < 0.1 else content + rng.randbytes(rng.randrange(1, 200))
    if kind == 1:
        return content[: rng.randrange(size)]
    changed = bytearray(content)
    at = rng.randrange(size)
    length = min(size - at, rng.choice((1, 4, 16, 256)))
    if kind == 2:
        changed[at : at + length] = rng.randbytes(length)
    elif kind == 3:
        changed[at : at + length] = bytes(length)
    elif kind == 4:
        del changed[at : at + length]
    elif kind == 5:
        changed[at:at] = changed[at : at + length]
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
            changed[rng.randrange(size)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def odd_values(outside: Path) -> list[Any]:
    """Values of every type and size; some lead to ``outside``, where nothing may be touched."""
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    return [
        None, True, False, 0, -1, 1, 2, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.0, -0.5, 1e-320,
        1e308, math.inf, -math.inf, math.nan, "", "0.5", "nan", "1e999", "60M", "-5 ms", "x" * 300,
        "x" * 100_000, [], {}, [[]], [1, 2], [0.5, "60M"], {"a": 1}, {"": ""}, deep, "a\x00b",
        "\x1b]0;owned\x07", "\u202egnp.exe", "\ud800", "日本語", "=HYPERLINK(\"http://evil\")",
        "<script>alert(1)</script>", "$\\frac{1}{0}$", "..", "../../outside/trap.py",
        "../../outside/trap.py:Mine", f"{outside}/trap.py:Mine", f"{outside}/trap.py",
        "~/trap.py:Mine", "trap:Mine", "os:system", "builtins:eval", f"{outside}/secret",
        "/dev/zero", "/dev/stdin", "live:Net@0123456789abcdef", "torchvision:resnet18", "file.py:",
        ":", "2026-13-01",
    ]  # fmt: skip


def change_text(content: bytes, rng: random.Random, outside: Path, kind: str) -> bytes:
    """One to three changed values, keys or places of a JSON or YAML file; sometimes bytes."""
    if rng.random() < 0.15:
        return change_bytes(content, rng)
    values = json.loads(content) if kind == "json" else yaml.safe_load(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        values = _changed(values, rng, outside)
    if kind == "json" or rng.random() < 0.5:
        # JSON is YAML, and says what YAML's dump refuses.
        return json.dumps(values).encode()
    return yaml.safe_dump(values, allow_unicode=False, sort_keys=False).encode()


def _changed(values: Any, rng: random.Random, outside: Path) -> Any:
    values = copy.deepcopy(values)
    places = list(_places(values))
    if not places:
        return rng.choice(odd_values(outside))
    holder, key = rng.choice(places)
    kind = rng.randrange(8)
    if kind <= 4:
        holder[key] = rng.choice(odd_values(outside))
    elif kind == 5:
        del holder[key]
    elif kind == 6:
        other, name = rng.choice(places)
        try:
            holder[key] = copy.deepcopy(other[name])
        except (KeyError, IndexError):
            pass
    elif isinstance(holder, dict):
        name = rng.choice([each for each in odd_values(outside) if isinstance(each, str)])
        holder[name] = holder.pop(key)
    else:
        holder.extend(copy.deepcopy(holder) * rng.choice((1, 5)))
    return values


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    keys: Any = ()
    if isinstance(values, dict):
        keys = list(values)
    elif isinstance(values, list):
        keys = range(len(values))
    for key in keys:
        yield values, key
        yield from _places(values[key])


def change_file(path: Path, rng: random.Random, outside: Path, others: list[Path]) -> None:
    """Put something else in a file's place: another file, a link, a folder, a pipe, nothing."""
    makers: list[Callable[[], object]] = [
        lambda: path.symlink_to(outside / "secret"),
        lambda: path.symlink_to(os.path.relpath(outside / "secret", path.parent)),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(path.name),
        lambda: os.mkfifo(path),
        path.mkdir,
        path.touch,
        lambda: None,
        lambda: path.write_bytes(rng.choice(others).read_bytes()),
    ]
    content = rng.choice(makers)
    if content is makers[-1] and not others:
        content = path.touch
    # Before the file itself goes, which may be the one that is copied.
    copied = [each for each in others if each != path] or [path]
    other = rng.choice(copied).read_bytes()
    path.unlink()
    if content is makers[-1]:
        path.write_bytes(other)
    else:
        content()
