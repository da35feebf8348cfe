"""The referee's rules, taken out one at a time (REFEREE.md); each is noticed by a test of its own rule."""

from tests.referee import rule_mutants

MUTANTS = tuple(mutant.of_the_harness() for mutant in rule_mutants.MUTANTS)
