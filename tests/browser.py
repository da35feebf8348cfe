"""A headless Chromium for tests of pages: opens a file and remembers all that a reader must never meet.

Write `pytest_plugins = ["tests.browser"]` at the head of a test module, mark the test `browser`, and:

    page = open_page(path, width=390, scheme="dark")
    assert page.complaints() == []          # console errors, uncaught exceptions, failed and foreign requests
    assert page.scroll_width() <= 390
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest

__all__ = ["OpenPage", "browser", "new_tab", "open_page"]

Scheme = Literal["light", "dark"]

LOCAL_SCHEMES = {"file", "data", "blob", "about"}
ARGUMENTS = [
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


def chromium() -> str | None:
    """Where Chromium is: the environment variable CHROMIUM, or the usual names on the path."""
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


@dataclass
class OpenPage:
    """A page that was opened, what went wrong on it, and a playwright `page` for everything else."""

    page: object
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def goto(self, path: Path | str) -> None:
        """Open another page in the same tab: cheaper than a new one, and complaints add up."""
        self.page.goto(path if "://" in str(path) else Path(path).resolve().as_uri(), wait_until="load")

    def leave(self) -> None:
        """Empty the tab and forget what went wrong in it: the complaints to come are of the next page."""
        self.page.goto("about:blank")
        self.errors.clear()
        self.foreign.clear()

    def show(self, *, width: int, height: int = 900, scheme: Scheme = "light") -> None:
        """Another window or theme for the page that is open: cheaper than another load.

        A request that the page makes for them is among the complaints after the next questions, not at once.
        """
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme=scheme)
        # The page's scripts hear of it in the first frame; what they change is drawn in the second.
        self.page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")

    def complaints(self) -> list[str]:
        """Console errors and warnings, uncaught exceptions, failed requests, requests to another host."""
        return self.errors + [f"request to another host: {url}" for url in self.foreign]

    def scroll_width(self) -> int:
        """How wide the document is; more than the window means that a phone scrolls sideways."""
        return self.page.evaluate("document.documentElement.scrollWidth")

    def wide(self) -> list[str]:
        """The elements that stick out of the window and lie in no scrolling container: what to fix."""
        return self.page.evaluate(STICKING_OUT)

    def _watch(self) -> None:
        page = self.page
        page.on("console", lambda m: self.errors.append(m.text) if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on("requestfailed", lambda r: self.errors.append(f"request failed: {r.url} ({r.failure})"))
        page.on("response", lambda r: self.errors.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        page.route(lambda url: urlsplit(url).scheme not in LOCAL_SCHEMES, self._refuse)

    def _refuse(self, route) -> None:
        self.foreign.append(route.request.url)
        route.abort()


STICKING_OUT = """() => {
    const edge = document.documentElement.clientWidth;
    const scrolls = e => {
        for (let p = e.parentElement; p; p = p.parentElement)
            if (getComputedStyle(p).overflowX !== "visible") return true;
        return false;
    };
    return [...document.body.querySelectorAll("*")]
        .filter(e => e.getBoundingClientRect().right > edge + 0.5 && !scrolls(e))
        .map(e => e.tagName.toLowerCase() + (e.id ? "#" + e.id : "") + "." + e.className);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """One Chromium for a module's page tests, which are skipped, with the reason, where there is none.

    Not for the whole session: playwright holds this thread's event loop while it is open, and then Jupyter's
    client, used by other modules, could not start its own.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    executable = chromium()
    if executable is None:
        missing = pytest.fail if os.environ.get("DULCOURSE_REQUIRE_BROWSER") == "1" else pytest.skip
        missing("no Chromium: install it, or name it in the environment variable CHROMIUM.")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def new_tab(browser) -> Callable[..., OpenPage]:
    """`new_tab(width=1200, height=900, scheme="light", script=True)` shares nothing with other tabs."""

    def opened(
        *, width: int = 1200, height: int = 900, scheme: Scheme = "light", script: bool = True
    ) -> OpenPage:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=script
        )
        tab = OpenPage(context.new_page())
        tab._watch()
        return tab

    return opened


@pytest.fixture
def open_page(new_tab) -> Iterator[Callable[..., OpenPage]]:
    """`open_page(path, **mode)` opens a local file in a new tab, in the words of `new_tab`, for one test."""
    tabs = []

    def opened(path: Path | str, **mode) -> OpenPage:
        tabs.append(new_tab(**mode))
        tabs[-1].goto(path)
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.page.context.close()
