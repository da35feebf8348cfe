"""The tables of mutants fit the source, and the harness tells a bug that is noticed from one that is not."""

import ast
import subprocess
import sys

import pytest

from tests.mutants.harness import ROOT, Mutant, tables

ALL = [(table, mutant) for table, mutants in tables().items() for mutant in mutants]


@pytest.mark.parametrize(("table", "mutant"), ALL, ids=lambda part: getattr(part, "what", part))
def test_a_mutant_fits_the_source_and_its_tests_are_there(table, mutant):
    changed = mutant.apply((ROOT / mutant.file).read_text())
    assert mutant.new != mutant.old
    ast.parse(changed)
    for node in mutant.nodes:
        path, *names = node.partition("[")[0].split("::")
        tests = (ROOT / path).read_text()
        assert all(f"def {name}(" in tests or f"class {name}" in tests for name in names), node


def test_no_mutant_is_tried_twice():
    assert len({(mutant.file, mutant.old, mutant.new) for _, mutant in ALL}) == len(ALL)


@pytest.mark.parametrize("source", ["", "y = 2\n", "x = 1\nx = 1\n"])
def test_a_mutant_that_does_not_fit_says_how_often_it_does(source):
    with pytest.raises(LookupError, match=f"{source.count('x = 1')} times, expected exactly once"):
        Mutant("what", "file.py", "x = 1", "x = 2", "tests").apply(source)


@pytest.mark.slow
def test_the_harness_tells_survivors_from_the_dead():
    """In a process of its own, which forks: a bug, a change that is none, and one the tests cannot import."""
    program = """
import tempfile
from pathlib import Path
from tests.mutants import harness
from tests.mutants.harness import Mutant

harness.warm_up()
test = "tests/test_randomness.py"
mutants = [
    Mutant("keys are not separated", "dulcourse/randomness.py", 'b"derive"', 'b"generator"', test),
    Mutant("none", "dulcourse/randomness.py", "KEY_BYTES = 16  #", "KEY_BYTES = 8 * 2  #", test),
    Mutant("does not load", "dulcourse/randomness.py", "import hashlib", "import hashlibs", test),
]
with tempfile.TemporaryDirectory() as folder:
    copy = harness.copied(Path(folder))
    for mutant in mutants:
        with harness.patched(copy, mutant):
            try:
                print(bool(harness.failing(copy, mutant.nodes)))
            except RuntimeError as error:
                print(error)
    print(harness.failing(copy, [test]))
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.splitlines() == [
        "True",
        "False",
        "pytest ended with status 2 in the copy: the tests did not run",
        "[]",
    ], run.stderr


def test_a_table_that_is_not_there_is_named():
    command = [sys.executable, "-m", "tests.mutants", "nonsense"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert "no table of mutants is called nonsense: there are" in run.stderr
    assert "data" in run.stderr
