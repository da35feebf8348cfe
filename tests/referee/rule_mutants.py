"""Take each of the referee's rules out of a copy of the source, one at a time, and see its test fail.

    python -m tests.referee.rule_mutants

prints a table: rule, file, what was taken out, and the tests that noticed. Exit status 1 if none did.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import harness

RULES = "tests/referee/test_rules.py"


@dataclass(frozen=True)
class Mutant:
    """One rule taken out: `old`, which is in `file` exactly once, becomes `new`."""

    rule: int
    what: str
    file: str
    old: str
    new: str

    def of_the_harness(self) -> harness.Mutant:
        """To be noticed by a test of its own rule."""
        return harness.Mutant(self.what, self.file, self.old, self.new, RULES, only=f"rule_{self.rule}_")


REFEREE = "dulcourse/referee/"
MUTANTS = (
    Mutant(1, "freezing after a draw is allowed", REFEREE + "exam.py", "if self._drawn:", "if False:"),
    Mutant(
        1,
        "what is frozen can be changed",
        REFEREE + "autoregressive.py",
        "order.flags.writeable = group.flags.writeable = False",
        "pass",
    ),
    Mutant(
        2,
        "images are issued again",
        REFEREE + "exam.py",
        "if again or len(set(wanted)) != len(wanted):",
        "if False:",
    ),
    Mutant(
        2,
        "all models are asked about the same images",
        REFEREE + "exam.py",
        'secrets.derive(self._secret, "submission", self._submission, "images", model)',
        'secrets.derive(self._secret, "submission", self._submission, "images")',
    ),
    Mutant(
        2,
        "all submissions are asked about the same images",
        REFEREE + "exam.py",
        'secrets.derive(self._secret, "submission", self._submission, "images", model)',
        'secrets.derive(self._secret, "images", model)',
    ),
    Mutant(
        3,
        "a row counts when the entry of its symbol is finite",
        REFEREE + "code.py",
        "p = np.where(malformed(log_p), 1 / levels, p)",
        "own = np.isfinite(log_p[np.arange(len(symbols)), symbols])\n"
        "    p = np.where(own, np.where(malformed(log_p), 1.0, p), 1 / levels)",
    ),
    Mutant(
        3,
        "charges are clipped",
        REFEREE + "code.py",
        "return -np.log2((1 - LAMBDA) * p + LAMBDA / levels)",
        "return np.minimum(-np.log2((1 - LAMBDA) * p + LAMBDA / levels), 2 * np.log2(levels))",
    ),
    Mutant(
        4,
        "an image that fails costs what it cost so far",
        REFEREE + "code.py",
        "return np.where(failed, cap, np.minimum(bits, cap))",
        "return np.minimum(bits, cap)",
    ),
    Mutant(
        4,
        "no cap",
        REFEREE + "code.py",
        "return np.where(failed, cap, np.minimum(bits, cap))",
        "return np.where(failed, cap, bits)",
    ),
    Mutant(
        4,
        "the median instead of the mean",
        REFEREE + "score.py",
        "return float(values.mean()), float(",
        "return float(np.median(values)), float(",
    ),
    Mutant(
        5,
        "failures of the machinery are no answer's fault",
        REFEREE + "respondent.py",
        "except Exception as error:\n        # Rule 5",
        "except ZeroDivisionError as error:\n        # Rule 5",
    ),
    Mutant(5, "a purpose may draw again", REFEREE + "exam.py", "if labels in self._drawn:", "if False:"),
    Mutant(
        6,
        "two standard errors of the respondent's own are forgiven",
        REFEREE + "edges.py",
        "excess = score.difference",
        "excess = score.difference - 2 * score.difference_standard_error",
    ),
    Mutant(
        7,
        "a secret of 32 bits",
        REFEREE + "secret.py",
        "secrets.token_bytes(KEY_BYTES)",
        "secrets.token_bytes(4)",
    ),
    Mutant(7, "any secret will do", REFEREE + "exam.py", "if len(secret) < KEY_BYTES:", "if False:"),
    Mutant(
        8,
        "the second party starts while the first lives",
        REFEREE + "exam.py",
        "if self._party is not None:",
        "if False:",
    ),
    Mutant(
        9,
        "labels are free",
        REFEREE + "autoregressive.py",
        "return math.log2(classes), sent, control",
        "return 0.0, sent, control",
    ),
    Mutant(
        9,
        "images are sent in the order they came in",
        REFEREE + "autoregressive.py",
        "shuffled = generator.permutation(n)",
        "shuffled = np.arange(n)",
    ),
    Mutant(
        10, "any share for public data", "autograder/rubric.py", "PUBLIC_SHARE = 0.2", "PUBLIC_SHARE = 1.0"
    ),
)


def noticed_by(mutant: Mutant | None) -> list[str]:
    """The tests of the mutant's rule (of all rules for None) that fail in a copy of the course."""
    with tempfile.TemporaryDirectory() as folder:
        copy = harness.copied(Path(folder))
        if mutant is None:
            return harness.failing(copy, [RULES], "rule_", all_of_them=True)
        bug = mutant.of_the_harness()
        with harness.patched(copy, bug):
            return harness.failing(copy, bug.nodes, bug.only, all_of_them=True)


def main() -> int:
    """Print the table; 0 when the untouched source passes and every mutant is noticed."""
    harness.warm_up()
    good = True
    for mutant in (None, *MUTANTS):
        tests = noticed_by(mutant)
        good &= bool(tests) == (mutant is not None)
        rule, what = (0, "nothing taken out") if mutant is None else (mutant.rule, mutant.what)
        where = "" if mutant is None else mutant.file
        print(f"{rule:2} | {where} | {what} | {'; '.join(tests) or 'no test fails'}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
