"""The book's sources: what a build cannot see, or sees too late."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.M | re.S)
HEADER = {"extension": ".md", "format_name": "myst"}


def pages() -> list[Path]:
    toc = (ROOT / "_toc.yml").read_text()
    return [ROOT / f"{name}.md" for name in re.findall(r"(?:root|file): (\S+)", toc)]


def with_code() -> list[Path]:
    return [page for page in pages() if CELL.search(page.read_text())]


def chapters() -> list[Path]:
    return [page for page in pages() if page.parent != ROOT / "book"]


def cells(page: Path) -> list[tuple[dict, str]]:
    """Options and code of each code cell."""
    found = []
    for body in CELL.findall(page.read_text()):
        options, code = {}, body
        if body.startswith("---\n"):
            _, head, code = body.split("---\n", 2)
            options = yaml.safe_load(head)
        found.append((options, code))
    return found


def prose(page: Path) -> str:
    """What a reader reads: no header, code, formulas, roles or literals."""
    text = page.read_text()
    for pattern in (
        r"\A---\n.*?\n---\n",
        r"^```.*?^```$",
        r"^\$\$.*?^\$\$",
        r"\$[^$]*\$",
        r"(\{[\w:]+\})?`[^`]*`",
    ):
        text = re.sub(pattern, "", text, flags=re.M | re.S)
    return text


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_table_of_contents_is_the_book():
    written = set((ROOT / "book").rglob("*.md"))
    assert written == set(pages())
    assert not list((ROOT / "book").rglob("*.ipynb")), "notebooks with outputs do not belong into git"


@pytest.mark.parametrize("page", with_code(), ids=name)
def test_notebooks_carry_the_header_that_makes_them_notebooks(page):
    head = yaml.safe_load(page.read_text().split("---\n")[1])
    representation = head["jupytext"]["text_representation"]
    assert HEADER.items() <= representation.items()
    assert {"format_version", "jupytext_version"} <= set(representation)
    assert head["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("page", with_code(), ids=name)
def test_every_figure_says_what_it_shows(page):
    drawn = r"plt\.show\(\)|^\w+\.figure\(|^plotting\.(curves|dependency|distribution|show_images)\("
    for options, code in cells(page):
        if re.search(drawn, code, re.M):
            alt = options.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) > 30, f"a figure without a description:\n{code}"


@pytest.mark.parametrize("page", with_code(), ids=name)
def test_code_fits_the_column(page):
    long = [line for _, code in cells(page) for line in code.splitlines() if len(line) > 88]
    assert not long


@pytest.mark.parametrize("page", pages(), ids=name)
def test_headings_hold_no_formulas(page):
    text = CELL.sub("", page.read_text())
    assert not re.findall(r"^#+ .*\$.*$", text, re.M)


@pytest.mark.parametrize("page", pages(), ids=name)
def test_numbers_in_the_text_come_from_cells(page):
    assert not re.findall(r"\b\d+\.\d\d+", prose(page)), "glue it from the cell that computes it"


def test_nothing_is_fetched_from_another_host():
    sources = [*pages(), *(ROOT / "book/_static").glob("*"), ROOT / "_config.yml"]
    fetched = r"""(src=["']|url\(["']?|!\[[^\]]*\]\(|@import ["']|mathjax_path: ?)(https?:)?//"""
    guilty = [str(path) for path in sources if path.is_file() and re.search(fetched, path.read_text())]
    assert not guilty


@pytest.mark.parametrize("page", chapters(), ids=name)
def test_a_chapter_has_its_shape(page):
    text = page.read_text()
    for part in ("chapter-head", "**After this chapter you can**", "**You need**", "takeaway", "next-step"):
        assert part in text, f"missing: {part}"
    exercises = re.findall(r"^:label: (exercise-\S+)$", text, re.M)
    assert exercises
    assert exercises == re.findall(r"^```\{solution-start\} (\S+)\n:class: dropdown$", text, re.M)


@pytest.mark.parametrize("page", with_code(), ids=name)
def test_a_chapter_asks_its_reader(page):
    if page in chapters():
        assert page.read_text().count(":::{quiz}") >= 2, "quick checks: two or more (CONTRIBUTING.md)"


def test_references_lead_somewhere():
    text = "".join(page.read_text() for page in pages())
    labels = re.findall(r"^\$\$ \(([\w-]+)\)$", text, re.M) + re.findall(r"^\(([\w-]+)\)=$", text, re.M)
    labels += re.findall(r"^:label: (\S+)$", text, re.M) + re.findall(r"^ +name: (fig-\S+)$", text, re.M)
    assert len(labels) == len(set(labels)), "a label is used twice"
    used = re.findall(r"\{(?:eq|ref|numref|prf:ref)\}`([\w-]+)`", text) + re.findall(
        r"\]\(([a-z]+-[\w-]+)\)", text
    )
    assert used
    assert set(used) <= set(labels)
    cited = {key for group in re.findall(r"\{cite\}`([^`]+)`", text) for key in group.split(",")}
    assert cited
    assert cited <= {key for key, _ in papers()}


def papers() -> list[tuple[str, str]]:
    """Key and fields of each entry of the bibliography."""
    entries = re.split(r"\n(?=@)", (ROOT / "book/references.bib").read_text())
    return [re.match(r"@\w+\{([^,]+),(.*)", entry, re.S).groups() for entry in entries]


def test_every_paper_says_who_what_where_and_when():
    keys = [key for key, _ in papers()]
    assert len(keys) == len(set(keys))
    for key, entry in papers():
        fields = dict(re.findall(r"^ +(\w+) = \{(.*)\},?$", entry, re.M))
        assert {"author", "title", "year"} <= set(fields), key
        assert {"journal", "booktitle", "publisher"} & set(fields), key
        assert re.search(r"\d{4}", key)[0] == fields["year"], key
        assert re.sub(r"\W", "", fields["author"].split(",")[0].lower())[-4:] in key or "\\" in entry, key


def test_every_term_that_is_linked_is_in_the_glossary():
    glossary = ROOT / "book/glossary.md"
    terms = set(re.findall(r"^(?=\w)([^\n]+)\n  \S", glossary.read_text().split("```{glossary}")[1], re.M))
    used = set(re.findall(r"\{term\}`([^`]+)`", "".join(page.read_text() for page in pages())))
    assert len(terms) > 25
    assert used
    assert used <= terms
