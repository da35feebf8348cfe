"""What chapters are written with: quick checks, benchmarked numbers, one page at a time."""

import io
import json
from pathlib import Path

import pytest

from book import kit

pytest_plugins = ["tests.browser"]

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = f"""
import sys
sys.path.insert(0, {str(ROOT / "book/_ext")!r})
extensions = ["myst_parser", "quiz"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
html_theme = "basic"
html_static_path = [{str(ROOT / "book/_static/dulcourse.css")!r}]
html_css_files = ["dulcourse.css"]
"""
QUIZ = """:::{quiz}
What is $1 + 1$?

- (x) $2$, *of course*.

  Count your hands.
- ( ) Three.

  One too many.
:::
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """`built(text)` is the page that Sphinx makes of some MyST, and what it complained of."""
    sphinx = pytest.importorskip("sphinx.application")

    def build(text: str) -> tuple[Path, str]:
        folder = tmp_path_factory.mktemp("book")
        (folder / "conf.py").write_text(CONFIGURATION)
        (folder / "index.md").write_text(f"# Page\n\n{text}\n")
        complaints = io.StringIO()
        places = (folder, folder, folder / "html", folder / "doctrees")
        app = sphinx.Sphinx(*map(str, places), "html", status=None, warning=complaints)
        app.build()
        return folder / "html" / "index.html", complaints.getvalue()

    return build


@pytest.fixture(scope="module")
def quiz(built) -> Path:
    page, complaints = built(QUIZ)
    assert complaints == ""
    return page


def test_a_choice_is_a_fold_with_its_verdict_and_reason(quiz):
    html = quiz.read_text()
    assert html.count("<details") == html.count("<summary>") == 2
    right, wrong = html.split("<details")[1:]
    assert 'class="quiz-choice quiz-right"' in right
    assert "<em>of course</em>" in right.split("</summary>")[0]
    assert "Right.</p><p>Count your hands." in right.split("</summary>")[1]
    assert 'class="quiz-choice quiz-wrong"' in wrong
    assert "No.</p><p>One too many." in wrong.split("</summary>")[1]
    assert "(x)" not in html
    assert "( )" not in html


WRONG = [
    ("- (x) Yes.\n\n  So.\n- ( ) No.\n\n  So.", "a quiz is a question and then a list"),
    ("Well?", "a quiz is a question and then a list"),
    ("Well?\n\n- (x) Yes.\n\n  So.\n- (x) Too.\n\n  So.", "at least one right choice"),
    ("Well?\n\n- ( ) Yes.\n\n  So.", "at least one right choice"),
    ("Well?\n\n- Yes.\n\n  So.\n- ( ) No.\n\n  So.", "'Yes.' does not"),
    ("Well?\n\n- (x) Yes.\n- ( ) No.\n\n  So.", "says why it is right or wrong: '(x) Yes.' does not"),
]


@pytest.mark.parametrize(("body", "words"), WRONG)
def test_a_quiz_that_is_not_one_stops_the_build(built, body, words):
    _, complaints = built(f":::{{quiz}}\n{body}\n:::")
    assert words in complaints
    assert "index.md:3" in complaints


@pytest.mark.browser
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_choice_opens_by_keyboard_with_or_without_scripts(open_page, quiz, script, scheme):
    opened = open_page(quiz, width=390, scheme=scheme, script=script)
    page = opened.page
    assert page.locator(".quiz-reason:visible").count() == 0
    page.keyboard.press("Tab")
    while page.locator("summary:focus").count() == 0:
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".quiz-reason:visible").inner_text().split() == ["Right.", "Count", "your", "hands."]
    assert opened.scroll_width() <= 390


@pytest.mark.browser
def test_every_reason_is_printed(open_page, quiz):
    page = open_page(quiz).page
    closed = page.locator(".quiz").bounding_box()["height"]
    page.emulate_media(media="print")
    assert page.locator(".quiz").bounding_box()["height"] > closed + 50


# --- benchmarked numbers ------------------------------------------------------------------------------------

RECEIPT = {
    **{"date": "2026-11-22", "torch": "2.13.0", "python": "3.11.7", "machine": "x86_64", "library": "abc"},
    **{"seeds": [0, 1], "seconds": 60.0},
}
ROWS = {
    "A <model>": {
        "receipt": RECEIPT,
        "splits": [
            {"seed": 0, "test": 2.0, "sampled_per_second": 1500.0, "also": {"its bound": 1.5}},
            {"seed": 1, "test": 2.2, "sampled_per_second": 2500.0, "also": {"its bound": 1.7}},
        ],
    },
    "once": {
        "receipt": {**RECEIPT, "seeds": [0], "library": "def"},
        "splits": [{"seed": 0, "test": 3.0, "sampled_per_second": 10.0}],
    },
}


@pytest.fixture
def results(tmp_path, monkeypatch) -> kit.Benchmark:
    (tmp_path / "toy.json").write_text(json.dumps(ROWS))
    monkeypatch.setattr(kit, "RESULTS", tmp_path)
    return kit.benchmark("toy")


def test_numbers_are_those_of_the_file(results):
    assert results.mean("A <model>") == pytest.approx(2.1)
    assert results.error("A <model>") == pytest.approx(0.2)  # 2 · (0.2 / √2) / √2
    assert results.mean("its bound") == pytest.approx(1.6)
    assert results.rate("its bound") == results.rate("A <model>") == 2000
    assert (results.mean("once"), results.error("once")) == (3.0, 0.0)


def test_a_table_shows_rows_and_receipt(results):
    table = results.table("A <model>", "its bound", "once")
    html = table._repr_html_()
    assert "<td>A &lt;model&gt;</td><td>2.100 ± 0.200</td><td>2,000</td>" in html
    assert "<model>" not in html
    assert "A <model>   2.100 ± 0.200   2,000" in repr(table)
    for text in (html, repr(table)):
        assert text.count("2 splits, at most 60 CPU-seconds of training each; torch 2.13.0") == 1
        assert "python -m benchmarks.toy" in text
        assert "library abc" in text
        assert "benchmarks.toy: 1 split, at most 60" in text
        assert "library def" in text


def test_a_figure_has_the_best_row_on_top(results):
    ax = results.figure("A <model>", "its bound", "once").axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["once", "A <model>", "its bound"]
    assert ax.get_xlabel() == "test bits per dimension"


def test_a_name_that_is_not_there_is_told_what_is(results):
    with pytest.raises(LookupError, match="'twice': there are A <model>, once"):
        results.mean("twice")
    with pytest.raises(LookupError, match="'tyo': expected one of toy"):
        kit.benchmark("tyo")


def test_the_committed_results_can_be_shown():
    digits = kit.benchmark("digits")
    assert 1.8 < digits.mean("MADE") < digits.mean("shared histogram") < 3
    assert digits.table(*digits.rows).receipt.count("python -m benchmarks.digits") >= 1


@pytest.mark.parametrize("value", [1.25, 8192, "digits"])
def test_a_number_is_kept_as_the_book_expects_it(monkeypatch, value):
    """MyST-NB's own `glue` says the same, later."""
    from myst_nb.ext import glue

    said = []
    for module, name in ((kit, "display"), (glue, "ipy_display")):
        monkeypatch.setattr(module, name, lambda data, *, raw, metadata: said.append((data, raw, metadata)))
    kit.glue("here", value)
    glue.glue("here", value, display=False)
    ours, theirs = said
    assert ours == theirs
