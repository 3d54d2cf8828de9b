"""Text that others wrote, shown as text: no terminal obeys it, and no spreadsheet computes it."""

from __future__ import annotations

import unicodedata

__all__ = ["plain_cell", "visible"]

# Control, format (such as those that turn the direction of writing), surrogates, line separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: str) -> str:
    r"""Text in which everything can be seen and nothing steers a terminal.

    Args:
        text: Perhaps from a folder or a file that somebody else wrote.

    Returns:
        The text; what has no shape of its own is written out, such as ``\x1b``. New lines and
        tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def plain_cell(text: str) -> str:
    """Text for a cell of a CSV file, which no spreadsheet takes for a formula.

    OWASP's advice on "CSV injection": a quote before what would begin one.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def _visible(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _UNSEEN:
        return character
    return (
        character.encode("ascii", "backslashreplace").decode()
        if ord(character) > 127
        else (f"\\x{ord(character):02x}")
    )
