"""The system's Chromium and Firefox behind the same few verbs, for scripts that look at a report."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.report.firefox import FIREFOX, Firefox

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ENTER = "\ue007"  # as the WebDriver standard names the key
SEEN = """new Promise((done) => {
    const look = () => document.querySelector(".loading") || !document.querySelector("main h1")
        ? setTimeout(look, 10) : requestAnimationFrame(() => requestAnimationFrame((t) => done(t / 1000)));
    look();
})"""


class Chromium:
    """A headless Chromium, by Playwright; the verbs are those of `Firefox`."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 800):
        from playwright.sync_api import sync_playwright

        self.playing = sync_playwright().start()
        browser = self.playing.chromium
        self.context = browser.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            args=["--no-sandbox"],
            viewport={"width": width, "height": height},
            accept_downloads=True,
            bypass_csp=True,
        )
        self.tab, self.downloads = self.context.new_page(), profile / "downloads"

    def open(self, address: str) -> None:
        """Open an address, anew also where only the part after # differs."""
        self.tab.goto("about:blank")
        self.tab.goto(address)

    def goto(self, address: str) -> None:
        """Open an address anew, and wait for its content."""
        self.open(address)
        self.run_async(SEEN)

    def run(self, expression: str):
        """The value of an expression, or of the promise that it is."""
        return self.tab.evaluate(expression)

    run_async = run

    def wait(self, expression: str, seconds: float = 20) -> None:
        """Wait until an expression is true."""
        self.tab.wait_for_function(expression, timeout=1000 * seconds)

    def press(self, keys: str) -> None:
        """Press keys one after the other."""
        for key in keys:
            if key == ENTER:
                self.tab.keyboard.press("Enter")
            else:
                self.tab.keyboard.type(key)

    def download(self, selector: str, name: str) -> Path:
        """Click what a selector names; the file that this downloads."""
        with self.tab.expect_download() as waited:
            self.run(f"document.querySelector('{selector}').click()")
        waited.value.save_as(self.downloads / name)
        return self.downloads / name

    def picture(self, path: Path) -> None:
        """Save what is seen as PNG."""
        self.tab.screenshot(path=path)

    def close(self) -> None:
        """End Chromium."""
        self.context.close()
        self.playing.stop()


KINDS = {"chromium": (CHROMIUM, Chromium), "firefox": (FIREFOX, Firefox)}


@contextmanager
def opened(name: str, profile: Path, **size: int) -> Iterator[Chromium | Firefox]:
    """A browser with a profile of its own, until the end of the block."""
    tab = KINDS[name][1](profile, **size)
    try:
        yield tab
    finally:
        tab.close()


def there() -> list[str]:
    """The names of the browsers that are installed."""
    return [name for name, (place, _) in KINDS.items() if place is not None]


def first_view(tab: Chromium | Firefox, address: str) -> float:
    """Open an address anew; the seconds from the start of its loading to the first frame with its content."""
    tab.open(address)
    return tab.run_async(SEEN)
