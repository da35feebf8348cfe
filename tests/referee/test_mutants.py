"""No rule of the referee can be taken out without a test of that rule noticing."""

import pytest

from tests.referee.rule_mutants import MUTANTS, noticed_by


def test_every_rule_has_a_mutant():
    assert {mutant.rule for mutant in MUTANTS} == set(range(1, 11))


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"rule {m.rule}: {m.what}")
def test_a_rule_taken_out_is_noticed(mutant):
    assert noticed_by(mutant)
