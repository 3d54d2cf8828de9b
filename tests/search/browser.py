"""Headless Chromium over its DevTools protocol, for pages that people read."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

_VARIABLE = "PRUNETUNE_CHROMIUM"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PATIENCE_SECONDS = 60.0


def find_chromium() -> str | None:
    """The browser's path: of ``$PRUNETUNE_CHROMIUM``, or one of the usual names."""
    named = os.environ.get(_VARIABLE)
    found = (shutil.which(name) for name in ([named] if named else _NAMES))
    return next((path for path in found if path), None)


class Page:
    """One tab.

    Attributes:
        complaints: Errors and warnings of the console, and requests that left the machine.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, loop: Any) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._loop = loop
        self._calls = 0
        self._seen: set[str] = set()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        result: dict[str, Any] = self._loop.run_until_complete(self._call(method, parameters))
        return result

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": parameters})
        while True:
            message = await self._receive()
            if message.get("id") == self._calls:
                assert "error" not in message, message
                return dict(message["result"])

    async def _receive(self) -> dict[str, Any]:
        message = await self._socket.receive_json(timeout=_PATIENCE_SECONDS)
        event, values = message.get("method", ""), message.get("params", {})
        self._seen.add(event)
        if event == "Runtime.exceptionThrown":
            self.complaints.append(str(values["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning"):
            self.complaints.append(str(values["args"]))
        elif event == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.complaints.append(values["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            url = values["request"]["url"]
            if not url.startswith(("file:", "data:")):
                self.complaints.append(f"asks for {url}")
        return dict(message)

    def open(self, path: Path) -> None:
        """Show a file, and wait until it has loaded."""
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")
        self._seen.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while "Page.loadEventFired" not in self._seen:
            self._loop.run_until_complete(self._receive())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """Show the page on a screen of this size in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )

    def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)
        if key == "Enter":
            self.call("Input.dispatchKeyEvent", type="char", key=key, text="\r")

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page as PNG."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def browser_page(chromium: str, profile: Path) -> Iterator[Page]:
    """Start a browser without a window.

    Args:
        chromium: Its path.
        profile: Folder for what it writes.
    """
    command = [
        chromium,
        "--headless=new",
        # Containers give it neither the privileges for its sandbox nor much shared memory.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    try:
        address = _address(process, profile)
        session, socket = loop.run_until_complete(_connect(address))
        try:
            yield Page(socket, loop)
        finally:
            loop.run_until_complete(session.close())
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_SECONDS)
        loop.close()


def _address(process: subprocess.Popen[bytes], profile: Path) -> str:
    """Where the protocol is spoken, once the browser has written it into its profile."""
    note = profile / "DevToolsActivePort"
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if note.is_file() and (match := re.match(r"(\d+)\n", note.read_text())):
            return f"http://127.0.0.1:{match.group(1)}"
        time.sleep(0.05)
    raise AssertionError(f"{process.args} did not start")


async def _connect(
    address: str,
) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    session = aiohttp.ClientSession()
    async with session.get(f"{address}/json/list") as answer:
        pages = [each for each in await answer.json() if each["type"] == "page"]
    return session, await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
