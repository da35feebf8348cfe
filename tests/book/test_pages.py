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

TYPESET = "window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => true) : true"
UNTOLD = "[...document.images].filter(i => !i.alt.trim()).map(i => i.outerHTML.slice(0, 80))"
BROKEN = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src.slice(0, 80))"


# A formula in a line of text does not scroll: what is too long for a phone is cut off, and no page grows.
CUT_OFF = """[...document.querySelectorAll('mjx-container:not([display])')].filter(formula =>
    [...formula.querySelectorAll('mjx-math, mjx-mrow, mjx-mi')].some(part =>
        part.getBoundingClientRect().right > innerWidth)).map(formula => formula.textContent)"""


@pytest.fixture(params=[*PAGES, "search"])
def path(request) -> Path:
    page = HTML / f"{request.param}.html"
    if not page.exists() and os.environ.get("DULCOURSE_REQUIRE_BROWSER") != "1":
        pytest.skip("the book is not built: run make book.")
    assert page.exists(), "the book is not built: run make book."
    return page


def test_a_page_is_whole(open_page, path):
    page = open_page(path)
    page.page.evaluate(TYPESET)
    assert page.complaints() == []
    assert page.page.locator("mjx-merror").count() == 0
    assert page.page.evaluate(UNTOLD) == []
    assert page.page.evaluate(BROKEN) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_a_phone(open_page, path, scheme):
    page = open_page(path, width=390, scheme=scheme)
    page.page.evaluate(TYPESET)
    assert page.scroll_width() <= 390, page.wide()
    assert page.page.evaluate(CUT_OFF) == []
    assert page.complaints() == []


def test_a_page_is_light(path):
    images = re.findall(r'src="([^":]*_images/[^"]+)"', path.read_text())
    weight = path.stat().st_size + sum((path.parent / image).stat().st_size for image in set(images))
    assert weight < MOST_BYTES


@pytest.mark.parametrize("path", ["book/lecture2/likelihood"], indirect=True)
def test_formulas_are_typeset(open_page, path):
    page = open_page(path)
    page.page.evaluate(TYPESET)
    assert page.page.locator("mjx-container").count() > 50
    assert page.page.evaluate("document.fonts.check('16px MJXTEX')"), "the fonts of formulas did not load"
