"""A headless Chromium driven over its pipe of DevTools, by the standard library alone."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

OPTIONS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--force-color-profile=srgb", "--hide-scrollbars", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream", "--remote-debugging-pipe",
]  # fmt: skip


def find_browser() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page. Its requests are in `requests`, what it logs and throws in `logged`."""

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        self.profile = tempfile.TemporaryDirectory()
        theirs, self.write = os.pipe()
        self.read, writes = os.pipe()
        command = [find_browser() or "chromium", *OPTIONS, f"--user-data-dir={self.profile.name}"]
        script = 'exec 3<&"$0" 4>&"$1"; shift; exec "$@"'
        command += [f"--window-size={width},{height}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", script, str(theirs), str(writes), *command], pass_fds=(theirs, writes),
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.close(writes)
        self.buffer, self.number, self.session = b"", 0, None
        self.requests: list[str] = []
        self.logged: list[str] = []
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        follow = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        self.call("Target.setAutoAttach", **follow)  # the requests of workers too
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.read)
        os.close(self.write)
        self.profile.cleanup()

    def call(self, method: str, seconds: float = 120, session: str | None = None, **params: Any) -> dict[str, Any]:
        """A command of the DevTools protocol, and its result."""
        number = self.send(method, session or self.session, **params)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = self.receive(end)
            if message is not None and message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
        raise TimeoutError(f"{method} had no answer in {seconds} seconds; logged: {self.logged[-5:]}")

    def send(self, method: str, session: str | None, **params: Any) -> int:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        data = json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        while data:
            data = data[os.write(self.write, data[:65536]) :]
        return self.number

    def receive(self, end: float) -> dict[str, Any] | None:
        """The next message; what is an event is noted."""
        while b"\0" not in self.buffer:
            if not select.select([self.read], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            self.buffer += os.read(self.read, 2**20)
        line, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(line)
        self.note(message.get("method", ""), message.get("params", {}))
        return message

    def note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Target.attachedToTarget":
            self.send("Network.enable", event["sessionId"])
            self.send("Runtime.enable", event["sessionId"])
            self.send("Runtime.runIfWaitingForDebugger", event["sessionId"])
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.logged.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded":
            self.logged.append(event["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning"):
            self.logged.append(" ".join(str(part.get("description") or part.get("value")) for part in event["args"]))

    def evaluate(self, code: str, seconds: float = 120) -> Any:
        """The value of an expression in the page; promises are awaited."""
        result = self.call(
            "Runtime.evaluate", seconds, expression=code, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.evaluate(
            "new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))"
        )

    def screenshot(self, path: Path, *, full: bool = True) -> None:
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(picture["data"]))

    def emulate(self, **features: str) -> None:
        """For example `prefers_color_scheme="dark"`."""
        rows = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=rows)

    def size(self, width: int, height: int, scale: float = 1) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
