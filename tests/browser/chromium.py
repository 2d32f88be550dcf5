"""A headless Chromium driven over its debugging pipe: no driver program, no port, no library."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
    "--no-default-browser-check", "--hide-scrollbars", "--remote-debugging-pipe", "--proxy-server=direct://",
)  # fmt: skip
TIMEOUT_S = 30.0


class Browser:
    """One page of one browser."""

    def __init__(self, program: str, folder: Path) -> None:
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        # The browser reads its commands on 3 and answers on 4.
        script = 'exec "$0" "$@" 3<&"$PIPE_IN" 4>&"$PIPE_OUT"'
        self._log = (folder / "chromium.log").open("wb")
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", script, program, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            pass_fds=(to_read, to_write), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            env={**os.environ, "HOME": str(folder), "PIPE_IN": str(to_read), "PIPE_OUT": str(to_write)},
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._number, self._rest, self._session = 0, b"", ""
        self.requests: list[str] = []
        self.failures: list[str] = []
        """What the page's console and the browser complained of."""
        (page, *_) = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its result."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            said = self._next(deadline)
            if said.get("id") == number:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                return said["result"]  # type: ignore[no-any-return]
            self._event(said)

    def _next(self, deadline: float) -> Mapping[str, Any]:
        while b"\0" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._from, 1 << 20)
            if not data:
                raise EOFError("the browser has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)  # type: ignore[no-any-return]

    def _event(self, said: Mapping[str, Any]) -> None:
        method, facts = said.get("method"), said.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.failures.append(json.dumps(facts["exceptionDetails"])[:800])
        elif method == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.failures.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])

    def open(self, address: str) -> None:
        """Goes to a page."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)

    def look(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """The window's size and the person's wish for light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, script: str, timeout_s: float = TIMEOUT_S) -> Any:
        """Waits until the expression is true, on a page that may still be loading; its value."""
        deadline = time.monotonic() + timeout_s
        while not (value := self._try(script)):
            if time.monotonic() > deadline:
                raise AssertionError(f"never true: {script}\n{self.failures}\n{self.run('document.body.innerText')}")
            time.sleep(0.1)
        return value

    def _try(self, script: str) -> Any:
        try:
            return self.run(script)
        except RuntimeError:
            return None

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """Ends the browser."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for descriptor in (self._to, self._from):
            os.close(descriptor)
        self._log.close()
