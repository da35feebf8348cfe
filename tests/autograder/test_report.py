"""The report: every verdict has its words, nothing hostile gets through, marks and pictures are shown."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.report import figures, write_report
from autograder.report.executed import MOST_PICTURES, read_cells
from autograder.report.figures import description, draw
from autograder.report.pseudonyms import pseudonyms
from autograder.report.summary import distribution
from autograder.report.text import LONGEST, UNSEEN, clean, count, duration, number, points, shorten, signed
from autograder.report.view import picture
from autograder.report.words import STATES, why_not_more
from autograder.report.written import Mark, read_marks, update_marks
from autograder.results import Verdict
from dulcourse.errors import UsageError
from tests.autograder.classroom import HOSTILE, png, rubric, write_class, write_result

pytest_plugins = ["tests.browser"]

VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
SELF_CLOSING = {"line", "rect", "circle"}  # SVG
OURS = (
    "a article b bdi body caption code details div figcaption figure footer h1 h2 h3 head header html li "
    "main nav p pre script section span strong style summary svg table tbody td text th thead title tr ul"
)
ELEMENTS = VOID | SELF_CLOSING | set(OURS.split())


class Page(HTMLParser):
    """A page taken apart; it fails on what a browser would have to repair."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.path, self.open, self.elements, self.words = path, [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == [], f"{path}: never closed: {self.open}"
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert len(ids) == len(set(ids)), f"{path}: an id is there twice among {ids}"

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"{self.path}: an attribute is there twice: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in SELF_CLOSING, tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert [tag] == self.open[-1:], f"{self.path}: </{tag}> closes {self.open}"
        self.open.pop()

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]

    def check_harmless(self) -> None:
        """Only our elements, no handlers, one script at most, every address beside the page."""
        assert {tag for tag, _ in self.elements} <= ELEMENTS
        assert len(self.all("script")) <= 1
        for tag, attributes in self.elements:
            assert not any(name.startswith("on") for name in attributes), (tag, attributes)
            assert "style" not in attributes or re.fullmatch(r"width: [\d.]+%", attributes["style"])
            for name in ("href", "src"):
                address = attributes.get(name, "./")
                assert re.match(r"\.{1,2}/|#|data:image/png;base64,|data:,$", address), (tag, address)


def folders(out: Path) -> list[Path]:
    return sorted(path.parent for path in out.glob("*/result.json"))


@pytest.fixture(scope="module")
def classroom(tmp_path_factory) -> Path:
    """A class with its report, names shown."""
    out = tmp_path_factory.mktemp("class")
    write_report(out, write_class(out), pseudonymous=False)
    return out


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """One submission for each hostile string, in every field that a student can choose, folder names too."""
    out = tmp_path_factory.mktemp("hostile")
    for number_, text in enumerate(HOSTILE):
        name = re.sub(r"[/\x00\ud800]", "", text)[:40].encode()[:200].decode(errors="ignore")
        write_result(out, f"{number_:02d}{name}", rubric(), verdict=Verdict.student_error, text=text)
    write_result(out, "javascript:alert(1)", rubric())
    write_result(out, "?x=1#y%2e", rubric())
    write_report(out, rubric(), pseudonymous=False)
    return out


# --- pages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_its_row_and_its_page(classroom, verdict):
    state = STATES[verdict]
    name = "ada" if verdict is Verdict.graded else f"student-{verdict.value.replace('_', '-')}"
    assert state.title in Page(classroom / "index.html").text
    text = Page(classroom / name / "index.html").text
    assert state.title in text
    assert state.sentence in text


def test_pages_are_well_formed_and_harmless(classroom):
    pages = [classroom / "index.html", *(folder / "index.html" for folder in folders(classroom))]
    assert len(pages) == 23
    for path in pages:
        page = Page(path)
        page.check_harmless()
        assert page.elements[0] == ("html", {"lang": "en"})
        assert not re.search(r"\b(nan|inf|None)\b", page.text), page.text
        assert all(image.get("alt") for image in page.all("img"))
        assert all("scope" in heading for heading in page.all("th"))


def test_the_policy_lets_nothing_in(classroom):
    for name in ("index.html", "ada/index.html"):
        metas = Page(classroom / name).all("meta")
        policy = next(m["content"] for m in metas if m.get("http-equiv") == "Content-Security-Policy")
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert rules["default-src"] == "'none'"
        assert set(rules) == {"default-src", "img-src", "style-src", "script-src", "base-uri", "form-action"}
        assert rules["script-src"].startswith("'sha256-")
        assert "http" not in policy


def test_the_table_has_a_row_and_a_working_link_for_each(classroom):
    page = Page(classroom / "index.html")
    links = [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    assert len(links) == len(folders(classroom)) == 22
    assert page.text.count("/ 44") == 22  # all are out of the same points, whatever happened to them
    assert all((classroom / unquote(link)).is_file() for link in links)


def test_a_page_says_what_was_measured_and_claimed(classroom):
    text = Page(classroom / "student-student-error" / "index.html").text
    for words in (
        "1.5101",
        "+0.2870",
        "0.8467",
        "output 5 sees input 7",
        "none at +0.400",
        "3 answers could not be used",
        "mixture-fit",  # the cell that failed
        "ValueError",
        "return compare(out_degrees",  # the notebook's source
        "a3" * 32,  # the receipt
    ):
        assert words in text


def test_missing_pictures_are_said(tmp_path):
    write_result(tmp_path, "none", rubric(), pictures=False)
    write_result(tmp_path, "lost", rubric())
    for path in (tmp_path / "lost").glob("*.png"):
        path.unlink()
    write_report(tmp_path, rubric(), pseudonymous=False)
    none, lost = (Page(tmp_path / name / "index.html") for name in ("none", "lost"))
    assert "Training: there was nothing to draw." in none.text
    assert "Samples: the picture's file is not there." in lost.text
    assert "What each output depends on" in none.text
    assert len([i for i in lost.all("img") if not i["src"].startswith("data:")]) == 0


def test_one_symbol_needs_no_picture_of_dependencies(tmp_path):
    write_result(tmp_path, "none", rubric(), pictures=False)
    write_report(tmp_path, rubric(), pseudonymous=False)
    assert (
        Page(tmp_path / "none" / "index.html").text.count("What each output depends on") == 1
    )  # of three models


def test_an_empty_folder_and_a_broken_result_have_words(tmp_path):
    write_report(tmp_path, rubric())
    assert "no results" in Page(tmp_path / "index.html").text
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "result.json").write_text('{"schema_version": 1')
    write_report(tmp_path, rubric(), pseudonymous=False)
    text = Page(tmp_path / "index.html").text
    assert "1 result cannot be read (torn)" in text


def test_what_was_run_without_a_sandbox_says_so_on_both_pages(tmp_path):
    write_result(tmp_path, "ada", rubric())
    path = tmp_path / "ada" / "result.json"
    raw = json.loads(path.read_text())
    raw["receipt"]["unsafe"] = True
    path.write_text(json.dumps(raw))
    write_report(tmp_path, rubric(), pseudonymous=False)
    for name in ("index.html", "ada/index.html"):
        assert "Run without a sandbox" in Page(tmp_path / name).text


def test_infrastructure_is_not_shown_as_zero_points(classroom):
    text = Page(classroom / "student-infrastructure-error" / "index.html").text
    assert "– / 44 points" in text
    assert "Nothing is charged" in text


# --- hostile strings ----------------------------------------------------------------------------------------


def test_hostile_strings_are_text_and_nothing_else(hostile):
    pages = [hostile / "index.html", *(folder / "index.html" for folder in folders(hostile))]
    assert len(pages) == len(HOSTILE) + 3
    for path in pages:
        html = path.read_text(encoding="utf-8")
        Page(path).check_harmless()
        assert not UNSEEN.search(html)
        assert len(html) < 2**20


@pytest.mark.parametrize("i", range(6))
def test_hostile_strings_can_be_read(hostile, i):
    folder = next(path for path in folders(hostile) if path.name.startswith(f"{i:02d}"))
    assert re.sub(r"\s+", " ", HOSTILE[i]) in Page(folder / "index.html").text


def test_links_to_hostile_folders_work(hostile):
    links = [a["href"] for a in Page(hostile / "index.html").all("a") if not a["href"].startswith("#")]
    assert len(links) == len(HOSTILE) + 2
    assert all((hostile / unquote(link)).is_file() for link in links)


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        ("good.png", True),
        ("../good.png", False),
        ("sub/good.png", False),
        ("link.png", False),
        ("vector.png", False),  # an SVG by another name
        ("good.svg", False),
        (".hidden.png", False),
        ("absent.png", False),
        ("x" * 5000 + ".png", False),
        ("a\x00.png", False),
        ("good.png\n", False),
        ("", False),
    ],
)
def test_only_pngs_beside_the_result_are_shown(tmp_path, file, shown):
    (tmp_path / "sub").mkdir()
    for name in ("good.png", "sub/good.png", "good.svg", ".hidden.png"):
        (tmp_path / name).write_bytes(png("x"))
    (tmp_path / "vector.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>")
    (tmp_path / "link.png").symlink_to(tmp_path / "good.png")
    assert (picture(tmp_path, file) is not None) is shown


@given(st.text(st.characters(), max_size=300) | st.sampled_from(HOSTILE))
def test_clean_leaves_only_what_is_seen(text):
    cleaned = clean(text)
    assert not UNSEEN.search(cleaned)
    assert len(cleaned) <= LONGEST + 60
    cleaned.encode("utf-8")
    assert clean(cleaned) == cleaned


def test_clean_keeps_ordinary_text():
    text = "σ² ≥ 0,\tträge — 日本語 עברית\n  −log p(x) 👍"
    assert clean(text) == text
    assert clean("\x1b[31mred\x1b[0m") == "red"
    assert clean("a\u202eb") == "a⟨U+202E⟩b"
    assert clean("e" + "\u0301" * 50 + "!") == "e" + "\u0301" * 3 + "!"  # accents upon accents


# --- small things -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (points(17.5), "17.5"),
        (points(20.0), "20"),
        (points(10 / 3), "3.33"),
        (points(0.0), "0"),
        (points(None), "–"),
        (number(None), "–"),
        (number(float("inf")), "not a finite number"),
        (number(1e30), "1.00e+30"),
        (signed(-0.0123), "−0.0123"),
        (signed(0.5, 3), "+0.500"),
        (duration(0.0), "0.0 s"),
        (duration(9.99), "10 s"),
        (duration(59.7), "1 min 00 s"),
        (duration(3599.6), "1 h 00 min"),
        (duration(7625), "2 h 07 min"),
        (count(1, "cell"), "1 cell"),
        (count(2, "cell"), "2 cells"),
    ],
)
def test_numbers_read_well(got, expected):
    assert got == expected


@given(st.text(max_size=500), st.integers(60, 200))
def test_shorten_keeps_both_ends(text, longest):
    short = shorten(text, longest)
    if len(text) <= longest:
        assert short == text
    else:
        assert len(short) <= longest + 10
        assert short.startswith(text[: longest // 2])
        assert short.endswith(text[-1])


def test_why_not_more_names_the_largest_loss(tmp_path):
    everything = {item.id: True for _, item in rubric().items}
    full = write_result(tmp_path, "full", rubric(), keep=everything)
    assert why_not_more(full) == ""
    one = write_result(tmp_path, "one", rubric(), keep=everything | {"model:made": False})
    assert why_not_more(one).startswith("Model made: output 5 sees input 7")
    assert "more)" not in why_not_more(one)
    two = write_result(
        tmp_path, "two", rubric(), keep=everything | {"model:made": False, "function:mask": False}
    )
    assert why_not_more(two).endswith("(+ 1 more)")
    # 5 of 5 points count for more than 3.5 of 5.
    more = everything | {"model:histogram": False, "sampler:made": False}
    assert why_not_more(write_result(tmp_path, "more", rubric(), keep=more)).startswith("Samples of made")
    missing = write_result(tmp_path, "missing", rubric(), verdict=Verdict.missing)
    assert why_not_more(missing) == STATES[Verdict.missing].sentence


@given(st.lists(st.floats(-5, 60), min_size=1, max_size=300))
def test_the_distribution_counts_everyone_once(values):
    drawn = distribution(values, 44)
    assert sum(bar.n for bar in drawn.bars) == len(values)
    assert all(bar.x >= 0 and bar.x + bar.width <= drawn.width for bar in drawn.bars)
    assert all(
        20 <= bar.y <= drawn.base and abs(bar.y + bar.height - drawn.base) < 1e-6 for bar in drawn.bars
    )
    assert drawn.left <= drawn.median_x <= drawn.width


def test_the_distribution_puts_the_edges_right():
    drawn = distribution([0, 4.4, 44, 43.9], 44)
    assert [bar.n for bar in drawn.bars] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert distribution([], 44) is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "3", '"x"', "{}", '{"cells": 3}', "[" * 100_000],
)
def test_what_is_no_notebook_has_no_cells(tmp_path, content):
    (tmp_path / "executed.json").write_text(content)
    assert read_cells(tmp_path / "executed.json") is None
    assert read_cells(tmp_path / "absent.json") is None


def test_cells_of_wrong_types_are_read_as_far_as_they_go(tmp_path):
    path = tmp_path / "executed.json"
    odd = {
        "index": "1",
        "id": 3,
        "problem": [],
        "source": {},
        "text": [1, "kept"],
        "images": ["<svg>", "PHN2Zy8+", 7, None],
    }
    path.write_text(json.dumps({"cells": [odd, 5, None]}))
    [cell] = read_cells(path)
    assert (cell.index, cell.id, cell.problem, cell.source, cell.text, cell.pictures) == (
        0,
        "",
        None,
        "",
        ["kept"],
        [],
    )


def test_too_many_pictures_are_counted_not_shown(tmp_path):
    import base64

    big = base64.b64encode(png("x") + bytes(MOST_PICTURES // 2)).decode()
    path = tmp_path / "executed.json"
    path.write_text(json.dumps([{"images": [big]}, {"images": [big, big]}]))
    cells = read_cells(path)
    assert [len(cell.pictures) for cell in cells] == [1, 0]
    assert [cell.left_out for cell in cells] == [0, 2]


# --- marks given by hand ------------------------------------------------------------------------------------


def test_marks_given_by_hand_reach_both_pages_and_are_never_lost(tmp_path):
    write_result(tmp_path, "ada", rubric())
    write_report(tmp_path, rubric(), pseudonymous=False)
    path = tmp_path / "written.csv"
    assert path.read_text() == "student,cell,points,comment\nada,made-strict,,\n"
    assert "4 by hand, waiting" in Page(tmp_path / "index.html").text
    path.write_text('student,cell,points,comment\nada,made-strict,3.5,"Right, but <b>why</b>?"\n')
    write_result(tmp_path, "bo", rubric())
    write_report(tmp_path, rubric(), pseudonymous=False)
    assert read_marks(path, rubric()) == {
        ("ada", "made-strict"): Mark(3.5, "Right, but <b>why</b>?"),
        ("bo", "made-strict"): Mark(),
    }
    page = Page(tmp_path / "ada" / "index.html")
    assert "Right, but <b>why</b>?" in page.text
    assert "9.5 / 44 points" in page.text
    assert Page(tmp_path / "index.html").text.count("by hand, waiting") == 1


def test_no_line_is_made_for_those_who_answered_nothing(tmp_path):
    write_result(tmp_path, "ada", rubric(), verdict=Verdict.missing)
    write_report(tmp_path, rubric())
    assert not (tmp_path / "written.csv").exists()


def test_marks_survive_a_spreadsheet(tmp_path):
    path = tmp_path / "written.csv"
    path.write_text("\ufeffstudent;cell;points;comment\r\nada;made-strict;3,5;fine\r\n")
    assert update_marks(path, rubric(), ["ada"]) == {("ada", "made-strict"): Mark(3.5, "fine")}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("student,cell,points\n", "no column 'comment'"),
        ("", "no column"),
        ("student,cell,points,comment\nada,made-strict,many,\n", "line 2: points are 'many'"),
        ("student,cell,points,comment\nada,made-strict,nan,\n", "line 2: points are 'nan'"),
        ("student,cell,points,comment\nada,made-strict,5,\n", "worth 0 to 4"),
        ("student,cell,points,comment\nada,made-strict,-1,\n", "worth 0 to 4"),
        ("student,cell,points,comment\nada,made-strict,1,\nada,made-strict,2,\n", "line 3: student 'ada'"),
    ],
)
def test_marks_that_cannot_be_used_are_named(tmp_path, content, words):
    (tmp_path / "written.csv").write_text(content)
    with pytest.raises(UsageError, match=re.escape(words)):
        read_marks(tmp_path / "written.csv", rubric())


# --- pseudonyms ---------------------------------------------------------------------------------------------


def test_names_stay_out_of_the_pseudonymous_report(tmp_path):
    students = ["Zuse-Konrad", "Noether-Emmy", "Gauss-Carl"]
    for student in students:
        write_result(tmp_path, student, rubric())
    write_report(tmp_path, rubric())
    shown = [tmp_path / "index.html", *(tmp_path / "pages").rglob("*")]
    assert len([path for path in shown if path.name == "index.html"]) == 4
    for path in shown:
        content = path.read_bytes() if path.is_file() else b""
        assert not any(student.encode() in content or student in str(path) for student in students)
    pages = [path for path in shown if path.name == "index.html"]
    for path in pages:
        page = Page(path)
        addresses = [a["href"] for a in page.all("a")] + [image["src"] for image in page.all("img")]
        for address in addresses:
            if not address.startswith(("#", "data:")):
                assert (path.parent / unquote(address)).is_file()
    assert all(student in Page(tmp_path / student / "index.html").text for student in students)


def test_pseudonyms_are_stable_distinct_and_private(tmp_path):
    path = tmp_path / "pseudonyms.csv"
    students = [f'student {i}, "the" {i}th' for i in range(300)]
    first = pseudonyms(path, students[:200])
    again = pseudonyms(path, students)
    assert len(set(again.values())) == 300
    assert {student: again[student] for student in students[:200]} == first
    assert path.stat().st_mode & 0o077 == 0
    with path.open(newline="") as file:
        assert [row["pseudonym"] for row in csv.DictReader(file)] == sorted(again.values())


# --- pictures -----------------------------------------------------------------------------------------------


def losses(step, train, validation):
    return SimpleNamespace(step=step, train=train, validation=validation)


def test_pictures_describe_themselves_and_name_the_first_forbidden_pair(tmp_path):
    order = np.array([2, 0, 3, 1])
    rank = np.argsort(order)
    matrix = rank[None, :] < rank[:, None]
    matrix[0, 3] = True  # symbol 0 is generated second, symbol 3 third
    matrix[1, 2] = False
    samples = np.random.default_rng(0).integers(0, 4, (40, 1, 8, 8))
    files = draw(
        tmp_path,
        "made",
        samples=samples,
        levels=4,
        history=losses([10, 20], [2.0, 1.5], [2.1, 1.6]),
        references={"reference": 1.4},
        dependency=matrix,
        order=order,
    )
    assert files == {name: f"made-{name}.png" for name in ("samples", "curves", "dependency")}
    words = {name: description(tmp_path / file) for name, file in files.items()}
    assert words["samples"].startswith("The first 32 of 40 samples")
    assert "lowest, 1.600, at step 20" in words["curves"]
    assert words["dependency"].startswith("Output 0 sees input 3, which is forbidden")
    assert "1 of 6 earlier inputs are not used" in words["dependency"]
    assert all(picture(tmp_path, file) for file in files.values())


def test_a_picture_is_drawn_again_when_what_it_shows_has_changed(tmp_path, monkeypatch):
    drawn = []

    def counted(figure, words, shows, png=figures._png):
        drawn.append(words)
        return png(figure, words, shows)

    monkeypatch.setattr(figures, "_png", counted)
    samples = np.zeros((40, 1, 8, 8), np.int64)
    history = losses([10, 20], [2.0, 1.5], [2.1, 1.6])
    given = {"samples": samples, "levels": 4, "history": history, "references": {"reference": 1.4}}
    files = draw(tmp_path, "m", **given)
    assert draw(tmp_path, "m", **given | {"samples": samples.copy()}) == files
    assert len(drawn) == 2
    draw(tmp_path, "m", **given | {"references": {"reference": 1.5}})
    draw(tmp_path, "m", **given | {"references": {"reference": 1.5}, "levels": 5})
    assert [words.split()[0] for words in drawn[2:]] == ["Loss", "The"]
    (tmp_path / "m-samples.png").write_bytes(b"cut off")
    assert draw(tmp_path, "m", samples=samples, levels=5) == {"samples": "m-samples.png"}
    assert len(drawn) == 5
    monkeypatch.setattr(figures, "library_hash", lambda: "another")
    draw(tmp_path, "m", samples=samples, levels=5)
    assert len(drawn) == 6
    # What cannot be drawn is not answered, though a picture of before may lie there.
    assert draw(tmp_path, "m", history=losses([1], [np.nan], [np.nan])) == {}


def test_pairs_of_numbers_are_points_of_the_plane(tmp_path):
    samples = np.random.default_rng(0).integers(0, 64, (40, 2, 1, 1))
    files = draw(tmp_path, "plane", samples=samples, levels=64)
    assert description(tmp_path / files["samples"]) == (
        "40 samples, as the notebook drew them, each a point of the plane."
    )


@pytest.mark.parametrize(
    ("arrays", "drawn"),
    [
        ({"samples": np.full((2, 1, 8, 8), np.nan), "levels": 4}, True),
        ({"samples": np.full((2, 1, 8, 8), 1e308), "levels": 4}, True),
        ({"samples": np.zeros((2, 3, 900, 700)), "levels": 256}, True),
        ({"samples": np.zeros((5, 1, 1, 1), np.int64), "levels": 100}, True),
        ({"samples": np.full((300, 2, 1, 1), np.inf), "levels": 64}, True),
        ({"samples": np.zeros((0, 1, 8, 8)), "levels": 4}, False),
        ({"samples": np.zeros((8, 8)), "levels": 4}, False),
        ({"samples": np.array("text"), "levels": 4}, False),
        ({"history": losses([0, 1], [1e300, 1.0], [np.inf, 1.0])}, True),
        ({"history": losses([2**62, 1], [1.0, 1.0], [1.0, np.nan])}, True),
        ({"history": losses(list(range(50_000)), [1.0] * 50_000, [1.0] * 49_999)}, True),
        ({"history": losses([1], [2.0], [np.nan])}, True),
        ({"history": losses([], [], [])}, False),
        ({"history": losses([1], [np.nan], [np.nan])}, False),
        ({"history": losses(["a"], [1.0], [1.0])}, False),
        ({"dependency": np.eye(3, dtype=bool), "order": np.array([0, 1, 1])}, False),
        ({"dependency": np.ones((2, 3), bool)}, False),
        ({"dependency": np.ones((1, 1), bool)}, False),
        ({"dependency": np.ones((2000, 2000), bool)}, False),
    ],
)
def test_wild_arrays_are_drawn_or_left_out(tmp_path, arrays, drawn):
    files = draw(tmp_path, "m", **arrays)
    assert bool(files) is drawn
    for file in files.values():
        assert (tmp_path / file).stat().st_size < 2**19


def test_a_huge_loss_is_cut_off(tmp_path):
    draw(tmp_path, "m", history=losses([1, 2], [1e300, 1e300], [1e300, -1e300]))
    assert "lowest, -64.000, at step 2" in description(tmp_path / "m-curves.png")


def test_other_files_have_no_description(tmp_path):
    (tmp_path / "x.png").write_text("<svg/>")
    assert description(tmp_path / "x.png") == ""


# --- in a browser -------------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_pages_fit_and_ask_nobody(classroom, open_page, width, scheme):
    page = open_page(classroom / "index.html", width=width, scheme=scheme)
    broken = "[...document.images].filter(i => i.loading != 'lazy' && !i.naturalWidth).map(i => i.src)"
    for name in ("index.html", "ada/index.html", "student-student-error/index.html"):
        page.goto(classroom / name)
        page.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.scroll_width() <= width
        assert page.wide() == []
        assert page.page.evaluate(broken) == []
        paper = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper))) > 380) is (scheme == "light")
    assert page.complaints() == []


@pytest.mark.browser
def test_the_table_sorts_by_what_is_pressed(classroom, open_page):
    page = open_page(classroom / "index.html").page
    values = "[...document.querySelectorAll('table.class td.points')].map(cell => Number(cell.dataset.value))"
    heading = page.locator("th:has(button:text-is('Points'))")
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert page.evaluate(values) == sorted(page.evaluate(values))
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert page.evaluate(values) == sorted(page.evaluate(values), reverse=True)
    page.get_by_role("button", name="Who").click()
    assert page.locator("table.class th.who").first.inner_text() == "ada"
    assert heading.get_attribute("aria-sort") is None


@pytest.mark.browser
def test_the_table_can_be_read_without_scripts(classroom, open_page):
    page = open_page(classroom / "index.html", script=False)
    assert page.page.locator("table.class tbody tr").count() == 22


@pytest.mark.browser
def test_hostile_pages_stay_ours(hostile, open_page):
    page = open_page(hostile / "index.html", width=390)
    for path in [hostile / "index.html", *(folder / "index.html" for folder in folders(hostile))]:
        page.goto(path)
        page.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.page.title() != "owned"
        assert page.page.locator("h1").count() == 1
        assert page.scroll_width() <= 390
        assert page.wide() == []
    assert page.complaints() == []
