"""The student's copy: current, without solutions, accepted by nbgrader, and harmless to run unsolved."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbgrader.nbgraderformat import MetadataValidator

from autograder.release import release, solved, without_solutions
from autograder.rubric import load_rubric
from dulcourse import handin
from dulcourse.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
NAME = "hw1_autoregressive"
RELEASE = ROOT / "assignments" / NAME / f"{NAME}.ipynb"
HOMEWORKS = sorted(path.parent.name for path in ROOT.glob("solutions/*/rubric.py"))


@pytest.fixture(scope="module", params=HOMEWORKS)
def rubric(request):
    return load_rubric(request.param, ROOT / "solutions")


@pytest.fixture(scope="module")
def notebook_path(rubric) -> Path:
    return ROOT / "assignments" / rubric.name / f"{rubric.name}.ipynb"


@pytest.fixture(scope="module")
def source(rubric) -> Path:
    return rubric.folder / f"{rubric.name}.py"


@pytest.fixture(scope="module")
def released(notebook_path):
    return nbformat.read(notebook_path, as_version=4)


@pytest.fixture(scope="module")
def public(notebook_path):
    return json.loads((notebook_path.parent / "public.json").read_text())


def solution_lines(source: Path) -> set[str]:
    """What stands between the marks, or in a solution cell without marks; not what a stub has too."""
    lines = set()
    for cell in solved(source).cells:
        marked = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", cell.source, re.DOTALL)
        whole = cell.metadata.nbgrader.solution and not marked
        for text in [cell.source] if whole else marked:
            lines |= {line.strip() for line in text.splitlines()}
    return {line for line in lines if len(line) > 3}


def test_what_is_checked_in_is_current(rubric):
    release(rubric.name, ROOT / "solutions", ROOT / "assignments", check=True)


def test_check_finds_a_release_that_is_stale_and_writes_nothing(tmp_path):
    folder = tmp_path / NAME
    shutil.copytree(RELEASE.parent, folder)
    notebook = folder / RELEASE.name
    notebook.write_text(notebook.read_text().replace("Counting", "Guessing"))
    before = notebook.read_bytes()
    with pytest.raises(UsageError, match=rf"{NAME}.ipynb .*differ.*autograder release {NAME}"):
        release(NAME, ROOT / "solutions", tmp_path, check=True)
    assert notebook.read_bytes() == before
    assert release(NAME, ROOT / "solutions", tmp_path) == [notebook]
    assert notebook.read_bytes() == RELEASE.read_bytes()


def test_two_builds_are_the_same_bytes(source, notebook_path):
    """This one, and the one that is checked in."""
    assert nbformat.writes(without_solutions(solved(source))) + "\n" == notebook_path.read_text()


def test_no_line_of_a_solution_is_left(released, source, notebook_path):
    lines = solution_lines(source)
    assert len(lines) > 40
    text = [line.strip() for cell in released.cells for line in cell.source.splitlines()]
    assert not lines & set(text)
    assert not any(mark in notebook_path.read_text() for mark in ("BEGIN SOLUTION", "END SOLUTION"))


def test_withheld_modules_are_not_named(released, rubric):
    text = "\n".join(cell.source for cell in released.cells)
    assert rubric.withheld
    assert not [module for module in rubric.withheld if module in text]


def test_every_solution_cell_is_a_stub(released):
    stubs = [cell for cell in released.cells if cell.metadata.nbgrader.solution and cell.cell_type == "code"]
    assert len(stubs) > 5
    assert all(
        "# YOUR CODE HERE" in cell.source and "raise NotImplementedError" in cell.source for cell in stubs
    )
    written = [
        cell for cell in released.cells if cell.cell_type == "markdown" and cell.metadata.nbgrader.grade
    ]
    assert [cell.source for cell in written] == ["YOUR ANSWER HERE"]


def test_nbgrader_and_jupyter_accept_it(released):
    nbformat.validate(released)
    MetadataValidator().validate_nb(released)
    for cell in released.cells:
        nbgrader = cell.metadata.nbgrader
        assert {"grade", "grade_id", "locked", "schema_version", "solution", "task"} <= set(nbgrader)
        assert nbgrader.schema_version == 3
        assert cell.id == nbgrader.grade_id
        assert not cell.get("outputs")
        assert cell.metadata.get("editable", True) is bool(nbgrader.solution)
        assert ("checksum" in nbgrader) is (nbgrader.grade or nbgrader.locked or nbgrader.solution)
    assert len({cell.id for cell in released.cells}) == len(released.cells)


def test_problems_and_points_are_the_rubrics(released, rubric, public):
    problems = {cell.metadata.get("dulcourse", {}).get("problem") for cell in released.cells} - {None}
    assert problems == {problem.name for problem in rubric.problems} - {"written"}
    assert rubric.points == sum(cell.metadata.nbgrader.get("points", 0) for cell in released.cells) >= 100
    assert {name: problem["points"] for name, problem in public["problems"].items()} == {
        problem.name: problem.points for problem in rubric.problems
    }
    assert [cell.id for cell in released.cells if "parameters" in cell.metadata.get("tags", [])] == [
        "parameters"
    ]


def test_points_that_disagree_are_refused(tmp_path):
    solutions = tmp_path / "solutions"
    shutil.copytree(ROOT / "solutions" / NAME, solutions / NAME)
    source = solutions / NAME / f"{NAME}.py"
    source.write_text(source.read_text().replace('"points": 25', '"points": 30'))
    with pytest.raises(UsageError, match=r"'mixture' is worth 25 points in rubric.py, but 30 on the cells"):
        release(NAME, solutions, tmp_path / "assignments")
    assert not (tmp_path / "assignments").exists()


def test_the_time_that_students_are_told_is_the_limit(released, rubric):
    words = {300: "five minutes", 600: "ten minutes", 900: "fifteen minutes"}[rubric.tier("cpu").seconds]
    assert words in released.cells[0].source


def test_recommended_sizes_are_the_references(released, rubric):
    from autograder.rubric import load_module

    reference = load_module(rubric.folder / "reference.py")
    setup = next(cell.source for cell in released.cells if cell.id == "setup")
    sizes = setup[setup.index("STEPS") : setup.index("def fresh_generator")]
    for tier in rubric.tiers:
        values = {"tier": tier, "handin": handin}
        exec(sizes, values)
        theirs = {name: by_tier[tier] for name, by_tier in vars(reference).items() if _by_tier(by_tier)}
        assert {"STEPS", "IMAGES"} <= theirs.keys()
        assert {name: values[name] for name in theirs} == theirs


def _by_tier(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"smoke", "cpu", "gpu"}


def test_public_examples_hold_no_model_and_are_small(public, rubric, notebook_path):
    assert len((notebook_path.parent / "public.json").read_text()) < 128 * 2**10
    asked = [probe["function"] for problem in public["problems"].values() for probe in problem["probes"]]
    assert set(asked) == {item.function for _, item in rubric.items if item.kind == "probe"}
    models = [model for problem in public["problems"].values() for model in problem["models"]]
    assert {model["name"] for model in models} == {i.name for _, i in rubric.items if i.kind == "model"}
    assert all(len(model["reference_bits"]) == model["images"] for model in models)


def test_as_released_it_runs_and_every_problem_says_that_it_is_unsolved(
    tmp_path, released, rubric, notebook_path
):
    """Unsolved, in a plain kernel: this notebook is our own."""
    import nbclient

    shutil.copy(notebook_path.parent / "public.json", tmp_path)
    notebook = nbformat.reads(nbformat.writes(released), as_version=4)
    find = {cell.id: cell for cell in notebook.cells}
    find["parameters"].source = find["parameters"].source.replace('tier = "cpu"', 'tier = "smoke"')
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}, shutdown_kernel="immediate"
    ).execute()
    said = {cell.id: "".join(o.get("text", "") for o in cell.get("outputs", [])) for cell in notebook.cells}
    for problem in rubric.problems:
        for model in (item.name for item in problem.items if item.kind == "model"):
            assert any(f"'{model}' is not solved yet" in text for text in said.values())
        if problem.name != "written":
            check = next(c for c in notebook.cells if f'handin.check("{problem.name}")' in c.source)
            assert "not solved yet" in said[check.id]
    assert not (tmp_path / "handin").exists()
