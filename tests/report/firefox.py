"""Drive the system's Firefox by its own Marionette protocol (as geckodriver does), without a further package.

A message is its length in bytes, a colon, and JSON: [0, id, command, parameters] and [1, id, error, result].
"""

import base64
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")


class Firefox:
    """A headless Firefox with a profile of its own; close() ends it."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 800):
        profile.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (profile / "user.js").write_text(
            f'user_pref("marionette.port", {port});\nuser_pref("browser.download.folderList", 2);\n'
            f'user_pref("browser.download.dir", {json.dumps(str(profile / "downloads"))});\n'
            'user_pref("browser.shell.checkDefaultBrowser", false);\n'
            'user_pref("ui.prefersReducedMotion", 1);\n'
        )
        (profile / "downloads").mkdir(exist_ok=True)
        self.downloads = profile / "downloads"
        words = [FIREFOX, "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
        words += ["--width", str(width), "--height", str(height)]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.id, self.socket = 0, self._connect(port)
        self._receive()  # what it says of itself
        self.ask("WebDriver:NewSession", {"capabilities": {"alwaysMatch": {}}})

    def _connect(self, port: int) -> socket.socket:
        end = time.monotonic() + 60
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=60)
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise
                time.sleep(0.2)

    def _receive(self):
        text = b""
        while not text.endswith(b":"):
            text += self.socket.recv(1)
        size, body = int(text[:-1]), b""
        while len(body) < size:
            body += self.socket.recv(size - len(body))
        return json.loads(body)

    def ask(self, command: str, parameters: dict):
        """Send a command and return its result; RuntimeError with Firefox's own message."""
        self.id += 1
        body = json.dumps([0, self.id, command, parameters]).encode()
        self.socket.sendall(f"{len(body)}:".encode() + body)
        _, _, error, result = self._receive()
        if error:
            raise RuntimeError(f"{command}: {error['message']}")
        return result.get("value") if isinstance(result, dict) and set(result) == {"value"} else result

    def open(self, address: str) -> None:
        """Open an address, anew also where only the part after # differs."""
        self.ask("WebDriver:Navigate", {"url": "about:blank"})
        self.ask("WebDriver:Navigate", {"url": address})

    def goto(self, address: str) -> None:
        """Open an address anew, and wait for its content."""
        self.open(address)
        self.wait("document.querySelector('main h1')")
        self.wait("!document.querySelector('.loading')")

    def run(self, expression: str):
        """The value of an expression in the page."""
        return self.ask("WebDriver:ExecuteScript", {"script": f"return ({expression})", "args": []})

    def inject(self, script: str) -> None:
        """Run a script where `run_async` sees what it defines, whatever the page's content policy says."""
        self.ask("WebDriver:ExecuteScript", {"script": script, "args": [], "newSandbox": False})

    def run_async(self, expression: str):
        """The value of a promise; RuntimeError with the reason if it is rejected."""
        script = f"({expression}).then(arguments[0], (reason) => arguments[0]({{ reason: String(reason) }}))"
        found = self.ask("WebDriver:ExecuteAsyncScript", {"script": script, "args": [], "newSandbox": False})
        if isinstance(found, dict) and "reason" in found:
            raise RuntimeError(found["reason"])
        return found

    def wait(self, expression: str, seconds: float = 20) -> None:
        """Wait until an expression in the page is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({expression})"):
            if time.monotonic() > end:
                raise TimeoutError(expression)
            time.sleep(0.05)

    def press(self, keys: str) -> None:
        """Press keys one after the other."""
        actions = [
            one
            for key in keys
            for one in ({"type": "keyDown", "value": key}, {"type": "keyUp", "value": key})
        ]
        sequence = {"type": "key", "id": "keyboard", "actions": actions}
        self.ask("WebDriver:PerformActions", {"actions": [sequence]})

    def download(self, selector: str, name: str) -> Path:
        """Click what an expression of CSS names; the file of that name that it downloads."""
        (self.downloads / name).unlink(missing_ok=True)
        self.run(f"document.querySelector('{selector}').click()")
        end = time.monotonic() + 20
        while not (self.downloads / name).exists() or list(self.downloads.glob("*.part")):
            if time.monotonic() > end:
                raise TimeoutError(name)
            time.sleep(0.05)
        return self.downloads / name

    def picture(self, path: Path) -> None:
        """Save what is seen as PNG."""
        text = self.ask("WebDriver:TakeScreenshot", {"full": False})
        path.write_bytes(base64.b64decode(text))

    def close(self) -> None:
        """End Firefox."""
        try:
            self.ask("Marionette:Quit", {"flags": ["eForceQuit"]})
        except (OSError, RuntimeError, ValueError):
            self.process.terminate()
        self.socket.close()
        self.process.wait(20)
