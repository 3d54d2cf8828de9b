"""How a conformance check says what is wrong."""

from __future__ import annotations

__all__ = ["expect"]


def expect(condition: bool, sentence: str) -> None:
    """Make sure of something, under ``python -O`` too, where assert statements are left out.

    Args:
        condition: What must hold.
        sentence: What is wrong otherwise.

    Raises:
        AssertionError: With the sentence.
    """
    if not condition:
        raise AssertionError(sentence)
