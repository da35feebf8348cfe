"""The rendered book, as a reader meets it: in a browser, on a desk and on a phone, without a network."""

import os
import re
from pathlib import Path

import pytest

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build/html"
PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text())
MOST_BYTES = 3_000_000
PHONE, DESK = 390, 1200

TYPESET = "window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => true) : true"
UNSET = "[...document.querySelectorAll('.math:not(:has(mjx-container))')].map(f => f.textContent)"
REFUSED = "mjx-merror, mtext[mathcolor=red]"  # red: a macro that nobody defined
UNTOLD = "[...document.images].filter(i => !i.alt.trim()).map(i => i.outerHTML.slice(0, 80))"
BROKEN = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src.slice(0, 80))"
THEME = "document.documentElement.dataset.theme"
FIRST_VISIT = "if (location.protocol === 'file:') { localStorage.clear(); sessionStorage.clear(); }"


# A formula in a line of text does not scroll: what is too long for a phone is cut off, and no page grows.
CUT_OFF = """[...document.querySelectorAll('mjx-container:not([display])')].filter(formula =>
    [...formula.querySelectorAll('mjx-math, mjx-mrow, mjx-mi')].some(part =>
        part.getBoundingClientRect().right > innerWidth)).map(formula => formula.textContent)"""


@pytest.fixture(scope="module", params=[*PAGES, "search"])
def path(request) -> Path:
    page = HTML / f"{request.param}.html"
    if not page.exists() and os.environ.get("DULCOURSE_REQUIRE_BROWSER") != "1":
        pytest.skip("the book is not built: run make book.")
    assert page.exists(), "the book is not built: run make book."
    return page


@pytest.fixture(scope="module")
def tab(new_tab):
    """One for the whole book: a page whose scripts were compiled for another loads in half the time."""
    tab = new_tab()
    tab.page.add_init_script(FIRST_VISIT)
    return tab


@pytest.fixture(scope="module")
def page(tab, path):
    """A page, loaded once and on a phone, where its formulas are set. A test shows it as it needs it."""
    tab.leave()
    tab.show(width=PHONE)
    tab.goto(path)
    tab.page.evaluate(TYPESET)
    return tab


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_a_phone(page, scheme):
    page.show(width=PHONE, scheme=scheme)
    assert page.page.evaluate(THEME) == scheme
    assert page.scroll_width() <= PHONE, page.wide()
    assert page.page.evaluate(CUT_OFF) == []
    assert page.complaints() == []


def test_a_page_is_whole(page):
    page.show(width=DESK)
    assert page.page.evaluate(UNSET) == []
    assert page.page.locator(REFUSED).all_text_contents() == []
    assert page.page.evaluate(UNTOLD) == []
    assert page.page.evaluate(BROKEN) == []
    assert page.complaints() == []


@pytest.mark.parametrize("path", ["book/lecture2/likelihood"], indirect=True)
def test_formulas_are_typeset(page):
    assert page.page.locator("mjx-container").count() > 50
    assert page.page.evaluate("document.fonts.check('16px MJXTEX')"), "the fonts of formulas did not load"


@pytest.mark.parametrize("path", ["book/lecture2/likelihood"], indirect=True)
def test_a_page_starts_on_a_desk_in_the_dark(open_page, path):
    """The scripts that look at window and theme while a page loads are the same on every page."""
    page = open_page(path, width=DESK, scheme="dark")
    page.page.evaluate(TYPESET)
    assert page.page.evaluate(THEME) == "dark"
    assert page.complaints() == []


def test_a_page_is_light(path):
    images = re.findall(r'src="([^":]*_images/[^"]+)"', path.read_text())
    weight = path.stat().st_size + sum((path.parent / image).stat().st_size for image in set(images))
    assert weight < MOST_BYTES
