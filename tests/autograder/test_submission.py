"""Reading what students hand in, and rebuilding it upon the release."""

import json
import os
from contextlib import suppress

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.rebuild import rebuild
from autograder.submission import MAX_BYTES, Submission, Unreadable, collect, parse, read
from dulcourse.errors import UsageError


def given_cell(name, source, *, kind="code", solution=False, locked=True, problem=None, plain=False):
    nbgrader = {"grade_id": name, "grade": False, "locked": locked, "solution": solution, "task": False}
    metadata = {} if plain else {"nbgrader": nbgrader | {"schema_version": 3}}
    if problem:
        metadata["dulcourse"] = {"problem": problem}
    return {"cell_type": kind, "id": name, "metadata": metadata, "source": source}


RELEASE = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "cells": [
        given_cell("title", "# Homework", kind="markdown"),
        given_cell("setup", "import torch"),
        given_cell(
            "mask", "def mask():\n    raise NotImplementedError", solution=True, locked=False, problem="made"
        ),
        given_cell("check-mask", "mask()", problem="made"),
        given_cell("cell-004", "x = 1", plain=True, problem="mixture"),
        given_cell("why", "YOUR ANSWER", kind="markdown", solution=True, locked=False, problem="mixture"),
    ],
}


def as_handed_in(**sources):
    """The release as a student saves it, with some sources changed."""
    cells = [
        dict(cell, source=sources.get(cell["id"].replace("-", "_"), cell["source"]))
        for cell in RELEASE["cells"]
    ]
    return {
        **RELEASE,
        "cells": [cell | ({"outputs": []} if cell["cell_type"] == "code" else {}) for cell in cells],
    }


def own(source, kind="code"):
    return {"cell_type": kind, "id": "abc123", "metadata": {}, "source": source, "outputs": []}


def built(notebook):
    return rebuild(RELEASE, parse(json.dumps(notebook).encode()))


def sources(rebuilt):
    return [cell["source"] for cell in rebuilt.notebook["cells"]]


# --- reading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"   \n", "is empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"PK\x03\x04....", "zip archive"),
        (b'{"cells": [', "broken at line 1"),
        (b'{"a": 1\n<<<<<<< HEAD\n=======\n>>>>>>> other\n}', "git merge"),
        (b"[]", "no list of cells"),
        (b'{"nbformat": 4}', "no list of cells"),
        (b'{"cells": [], "nbformat": 3}', "nbformat 3"),
        (b'{"cells": [], "nbformat": "4"}', "nbformat '4'"),
        (b'{"cells": [1], "nbformat": 4}', "Cell 1 is neither"),
        (b'{"cells": [{"cell_type": "code"}], "nbformat": 4}', "Cell 1 has no source"),
        (b'{"cells": [{"cell_type": "code", "source": [1]}], "nbformat": 4}', "Cell 1 has no source"),
        (b'{"cells": [{"cell_type": "heading", "source": ""}], "nbformat": 4}', "Cell 1 is neither"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"nbformat": ' + b"1" * 10_000 + b"}", "a number that no notebook holds"),
        (b" " * (MAX_BYTES + 1), "MiB"),
        (json.dumps({"nbformat": 4, "cells": [own("")] * 1001}).encode(), "1001 cells"),
    ],
)
def test_what_cannot_be_read_is_named(data, words):
    with pytest.raises(Unreadable, match=words) as error:
        parse(data)
    assert str(error.value).endswith(".")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
    )
)
def test_any_json_is_read_or_refused(value):
    for wrapped in (value, {"nbformat": 4, "cells": value}, {"nbformat": 4, "cells": [value]}):
        with suppress(Unreadable):
            assert isinstance(parse(json.dumps(wrapped).encode()).cells, list)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    with pytest.raises(Unreadable):
        parse(data)


def test_older_notebooks_without_ids_and_with_lines_are_read():
    cell = {"cell_type": "code", "source": ["a\n", "b"], "metadata": None}
    assert parse(json.dumps({"nbformat": 4, "cells": [cell]}).encode()).cells[0]["source"] == "a\nb"


def test_a_lone_surrogate_becomes_a_character():
    data = b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": "\\ud800", "metadata": {}}]}'
    assert parse(data).cells[0]["source"].encode() == b"?"


def test_links_and_pipes_are_not_opened(tmp_path):
    secret = tmp_path / "other.ipynb"
    secret.write_text(json.dumps(as_handed_in()))
    folder = tmp_path / "hw"
    folder.mkdir()
    (folder / "hw.ipynb").symlink_to(secret)
    with pytest.raises(Unreadable, match="is a link"):
        read(folder / "hw.ipynb")
    (folder / "hw.ipynb").unlink()
    os.mkfifo(folder / "hw.ipynb")
    with pytest.raises(Unreadable, match="not an ordinary file"):
        read(folder / "hw.ipynb")
    (tmp_path / "linked").symlink_to(folder)
    with pytest.raises(Unreadable, match="folder is a link"):
        read(tmp_path / "linked" / "hw.ipynb")


# --- the class -------------------------------------------------------------------------------------------


def hand_in(folder, student, name="hw.ipynb"):
    path = folder / "submitted" / student / "hw" / name
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(as_handed_in()))
    return path


def test_the_class_is_roster_and_folders(tmp_path):
    bob = hand_in(tmp_path, "bob")
    (tmp_path / "submitted" / ".DS_Store").mkdir()
    (tmp_path / "roster.csv").write_text("\ufeffstudent,section,time_factor\nada,1,1.5\nbob,2,\n")
    assert collect(tmp_path, "hw") == [Submission("ada", None, 1.5), Submission("bob", bob, 1.0)]


def test_the_only_notebook_is_taken_whatever_its_name(tmp_path):
    path = hand_in(tmp_path, "ada", "hw (1).ipynb")
    assert collect(tmp_path, "hw")[0].path == path
    assert "'hw (1).ipynb'" in read(path).notes[0]
    (path.parent / "hw (2).ipynb").write_text("{}")
    assert collect(tmp_path, "hw")[0].path is None


@pytest.mark.parametrize(
    ("roster", "words"),
    [
        ("name\nada\n", "one called 'student'"),
        ("student,time_factor\nada,fast\n", "'fast'"),
        ("student,time_factor\nada,0.5\n", "from 1 to 10"),
        ("student,time_factor\nada,nan\n", "from 1 to 10"),
        ("student\n../../etc\n", "slash"),
        ("student\ngrades.csv\n", "grades.csv"),
        ("student\n.ada\n", "dot"),
    ],
)
def test_a_roster_that_cannot_be_used_is_a_sentence(tmp_path, roster, words):
    (tmp_path / "submitted").mkdir()
    (tmp_path / "roster.csv").write_text(roster)
    with pytest.raises(UsageError, match=words):
        collect(tmp_path, "hw")


def test_a_folder_that_is_no_class_says_what_one_is(tmp_path):
    with pytest.raises(UsageError, match=r"submitted/<student>/hw/hw\.ipynb"):
        collect(tmp_path, "hw")


# --- rebuilding ------------------------------------------------------------------------------------------


def test_an_untouched_release_is_rebuilt_as_it_is():
    rebuilt = built(as_handed_in())
    assert sources(rebuilt) == [cell["source"] for cell in RELEASE["cells"]]
    assert rebuilt.notes == []
    nbformat.validate(nbformat.from_dict(rebuilt.notebook))


def test_solutions_are_the_students_and_given_cells_the_releases():
    rebuilt = built(
        as_handed_in(mask="def mask(): return 1", setup="import os", check_mask="pass", cell_004="x = 2")
    )
    assert sources(rebuilt) == [
        "# Homework",
        "import torch",
        "def mask(): return 1",
        "mask()",
        "x = 2",
        "YOUR ANSWER",
    ]
    assert [note.split("'")[1] for note in rebuilt.notes] == ["setup", "check-mask"]


def test_metadata_and_outputs_come_from_the_release_alone():
    notebook = as_handed_in()
    notebook["metadata"] = {"kernelspec": {"name": "bash"}}
    notebook["cells"][2] |= {"outputs": [{"output_type": "stream", "name": "stdout", "text": "100 points"}]}
    notebook["cells"][2]["metadata"] = {"nbgrader": {"grade_id": "mask"}, "tags": ["raises-exception"]}
    notebook["cells"].append(
        own("1") | {"metadata": {"tags": ["parameters"], "dulcourse": {"problem": "mixture"}}}
    )
    rebuilt = built(notebook)
    assert rebuilt.notebook["metadata"] == RELEASE["metadata"]
    assert rebuilt.notebook["cells"][2]["metadata"] == RELEASE["cells"][2]["metadata"]
    assert rebuilt.notebook["cells"][2]["outputs"] == []
    assert rebuilt.notebook["cells"][-1]["metadata"] == {"dulcourse": {"problem": "mixture"}}


def test_deleted_cells_are_restored():
    notebook = as_handed_in(mask="def mask(): return 1")
    del notebook["cells"][3], notebook["cells"][0]
    rebuilt = built(notebook)
    assert sources(rebuilt)[0] == "# Homework"
    assert sources(rebuilt)[3] == "mask()"
    assert all("put back" in note for note in rebuilt.notes)


def test_a_deleted_solution_becomes_the_stub_before_what_was_written_instead():
    notebook = as_handed_in()
    notebook["cells"][2] = own("def mask(): return 1")
    rebuilt = built(notebook)
    assert sources(rebuilt)[2:5] == [RELEASE["cells"][2]["source"], "def mask(): return 1", "mask()"]
    assert rebuilt.notebook["cells"][3]["metadata"] == {"dulcourse": {"problem": "made"}}
    assert rebuilt.notes == ["Cell 'mask' was missing: the unsolved one was put in its place."]


def test_copies_of_given_cells_go_and_copies_of_solutions_stay():
    notebook = as_handed_in(mask="def mask(): return 1")
    copy = dict(notebook["cells"][2], id="new", source="def mask(): return 2")
    notebook["cells"][3:3] = [
        copy,
        dict(notebook["cells"][1], id="new2"),
        dict(notebook["cells"][1], id="new3"),
    ]
    rebuilt = built(notebook)
    assert sources(rebuilt)[1:5] == ["import torch", "def mask(): return 1", "def mask(): return 2", "mask()"]
    assert rebuilt.notes == ["2 copies of the given cell 'setup' left out."]


def test_a_copy_above_the_original_is_still_the_copy():
    notebook = as_handed_in(mask="def mask(): return 1")
    notebook["cells"].insert(2, dict(notebook["cells"][2], id="new", source="def mask(): return 2"))
    rebuilt = built(notebook)
    assert sources(rebuilt)[1:4] == ["import torch", "def mask(): return 2", "def mask(): return 1"]


def test_own_cells_stay_where_they_were_and_inherit_the_problem():
    notebook = as_handed_in()
    notebook["cells"].insert(0, own("first"))
    notebook["cells"].insert(4, own("after the mask"))
    notebook["cells"].append(own("last", "markdown"))
    rebuilt = built(notebook)
    assert sources(rebuilt)[0] == "first"
    assert sources(rebuilt)[4] == "after the mask"
    assert sources(rebuilt)[-1] == "last"
    problems = [cell["metadata"].get("dulcourse", {}).get("problem") for cell in rebuilt.notebook["cells"]]
    assert (problems[0], problems[4], problems[-1]) == (None, "made", "mixture")
    nbformat.validate(nbformat.from_dict(rebuilt.notebook))


def test_cells_that_lost_their_metadata_are_known_by_id_or_text():
    notebook = as_handed_in(mask="def mask(): return 1")
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        if cell["id"] != "mask":
            del cell["id"]
    rebuilt = built(notebook)
    assert sources(rebuilt) == [*sources(built(as_handed_in(mask="def mask(): return 1")))]
    assert rebuilt.notes == []


def test_a_solution_turned_into_text_is_code_again():
    notebook = as_handed_in(mask="def mask(): return 1")
    notebook["cells"][2]["cell_type"] = "markdown"
    rebuilt = built(notebook)
    assert rebuilt.notebook["cells"][2]["cell_type"] == "code"
    assert rebuilt.notes == ["Cell 'mask' was turned into markdown: it is code again."]


@given(st.data())
def test_whatever_is_done_to_the_cells_the_release_is_all_there(data):
    cells = as_handed_in()["cells"] + [own("a"), own("b", "raw")]
    chosen = data.draw(st.lists(st.sampled_from(cells), max_size=12))
    rebuilt = built({**RELEASE, "cells": chosen})
    given_ids = [cell["id"] for cell in RELEASE["cells"]]
    assert [cell["id"] for cell in rebuilt.notebook["cells"] if cell["id"] in given_ids] == given_ids
    ids = [cell["id"] for cell in rebuilt.notebook["cells"]]
    assert len(set(ids)) == len(ids)
    locked = {
        cell["id"]: cell["source"]
        for cell in RELEASE["cells"]
        if cell["id"] in ("title", "setup", "check-mask")
    }
    assert all(cell["source"] == locked.get(cell["id"], cell["source"]) for cell in rebuilt.notebook["cells"])


def test_the_hash_depends_on_what_runs_only():
    notebook = as_handed_in(mask="def mask(): return 1")
    other = as_handed_in(mask="def mask(): return 1", setup="changed")
    assert built(notebook).sha256 == built(other).sha256
    assert built(notebook).sha256 != built(as_handed_in()).sha256
