"""Reading TensorBoard's event files without TensorBoard, for tests."""

from __future__ import annotations

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def scalars(folder: Path) -> dict[str, list[float]]:
    """The values of every curve below a folder by its tag, in the order of steps.

    A record is a length (uint64), its checksum (uint32), an ``Event`` and its checksum.
    """
    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        content = file.read_bytes()
        start = 0
        while start + 12 <= len(content):
            (length,) = struct.unpack_from("<Q", content, start)
            event = Event.FromString(content[start + 12 : start + 12 + length])
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
            start += 12 + length + 4
    return {tag: [curve[step] for step in sorted(curve)] for tag, curve in found.items()}
