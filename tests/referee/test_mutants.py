"""No rule of the referee can be taken out without a test of that rule noticing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.referee.rule_mutants import MUTANTS

ROOT = Path(__file__).parents[2]


def test_every_rule_has_a_mutant():
    assert {mutant.rule for mutant in MUTANTS} == set(range(1, 11))


@pytest.mark.slow
def test_a_rule_taken_out_is_noticed():
    """In a process of its own: it imports the library once for every mutant."""
    command = [sys.executable, "-m", "tests.referee.rule_mutants"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    rows = [line.split(" | ") for line in run.stdout.splitlines()]
    assert run.returncode == 0, run.stdout + run.stderr
    assert [row[2] for row in rows] == ["nothing taken out", *(mutant.what for mutant in MUTANTS)]
    assert [row[3] for row in rows[:1]] == ["no test fails"]
    for mutant, row in zip(MUTANTS, rows[1:], strict=True):
        assert f"test_rule_{mutant.rule}_" in row[3]
