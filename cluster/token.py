"""The token that a Ray cluster asks for; it is sent, and never shown."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from .._compat import read_ray_variables_again
from .._home import writable

__all__ = ["find_token", "provide_token", "send_token", "token_advice"]

_MODE, _TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"


def find_token() -> str | None:
    """Return the token that Ray finds, or ``None``.

    In this order: the variable ``RAY_AUTH_TOKEN``, the file that ``RAY_AUTH_TOKEN_PATH`` names, and
    ``~/.ray/auth_token``.
    """
    token = os.environ.get(_TOKEN, "").strip() or _read_token()
    # Whatever does not fit into a header would be shown in the error about it.
    return token if token.isascii() and len(token.split()) == 1 else None


def _read_token() -> str:
    try:
        chosen = os.environ.get("RAY_AUTH_TOKEN_PATH")
        path = Path(chosen).expanduser() if chosen else Path.home() / ".ray" / "auth_token"
        return path.read_text().strip()
    except (OSError, RuntimeError, UnicodeDecodeError):  # not there, not ours, or no home folder
        return ""


def provide_token() -> None:
    """Give a cluster that this process starts a token, where Ray could not keep one of its own.

    Ray makes a token for every local cluster and writes it to ``~/.ray``. Without a home that can
    be written, the token lives in the environment of this process and of those that it starts.
    """
    if find_token() is None and not writable(Path.home() / ".ray"):
        os.environ[_TOKEN] = secrets.token_hex(32)


def send_token() -> None:
    """Let this process, and those that it starts, send the token if there is one.

    Clusters ask for a token by default since Ray 2.60, but a client sends it only when told. What
    the user has said about it stays.
    """
    if _MODE in os.environ or find_token() is None:
        return
    os.environ[_MODE] = "token"
    read_ray_variables_again()


def token_advice(address: str) -> str:
    """Say what to do about a cluster that asks for a token, or for another one."""
    known = "does not accept the token of this machine" if find_token() else "asks for a token"
    return (
        f"The Ray cluster at {address!r} {known}: copy the file ~/.ray/auth_token of its head node "
        "to this machine, or set RAY_AUTH_TOKEN_PATH to where it is, together with "
        "RAY_AUTH_MODE=token."
    )
