"""Take each of the referee's rules out of a copy of the source, one at a time, and see its test fail.

    python -m tests.referee.rule_mutants

prints a table: rule, file, what was taken out, and the tests that noticed. Exit status 1 if none did.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import harness

RULES = ("tests/referee/test_rules.py", "tests/referee/test_rules_two_parties.py")


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
ASK = "answers.append(ask(respondent, question, asked, specs(part.stop - part.start)))"
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
        1,
        "an encoder may answer with any number of latents",
        REFEREE + "latent.py",
        "Spec((m, k), finite=False)",
        "Spec((m, None), finite=False)",
    ),
    Mutant(
        2,
        "public test images are dealt to every model anew",
        REFEREE + "exam.py",
        "if name not in data.unlimited():\n",
        "if name not in data.unlimited():\n            self._ledger = ImagesOnce()\n",
    ),
    Mutant(
        2,
        "calls about images overlap",
        REFEREE + "bitsback.py",
        "slice(start, min(start + size, n)) for start",
        "slice(max(0, start - 1), min(start + size, n)) for start",
    ),
    Mutant(
        3,
        "a pixel of which the second party of a flow says nothing is free",
        REFEREE + "flow.py",
        "np.where(np.isfinite(found), log_p, -math.log(levels))",
        "np.where(np.isfinite(found), log_p, 0.0)",
    ),
    Mutant(
        3,
        "what is finite in a bad row of the first party of a flow counts",
        REFEREE + "flow.py",
        "z0 = bitsback.clamped(z, bad, bitsback.MEANS)",
        "z0 = np.nan_to_num(z)",
    ),
    Mutant(
        3,
        "what is finite in a bad row of an encoder counts",
        REFEREE + "latent.py",
        "bitsback.clamped(mean, bad, bitsback.MEANS)",
        "np.nan_to_num(mean)",
    ),
    Mutant(
        3,
        "the log q of a flow is computed from z",
        REFEREE + "flow.py",
        "log_q = bitsback.log_normal(noise)",
        "noise = np.linalg.solve(asked.spread, (z - asked.z0)[:, :, None])[:, :, 0]\n"
        "    log_q = bitsback.log_normal(noise)",
    ),
    Mutant(
        3,
        "the log q of an encoder is computed from z",
        REFEREE + "latent.py",
        "log_q = bitsback.log_normal(noise)",
        "log_q = bitsback.log_normal((z - asked.mean) / np.exp(asked.log_std))",
    ),
    Mutant(
        4,
        "a flow that fails is not charged for it",
        REFEREE + "flow.py",
        "np.full(n, lost)",
        "np.zeros(n, bool)",
    ),
    Mutant(
        4,
        "a decoder that fails is not charged for it",
        REFEREE + "latent.py",
        "np.full(n, lost)",
        "np.zeros(n, bool)",
    ),
    Mutant(
        5,
        "what failed is asked again",
        REFEREE + "bitsback.py",
        ASK,
        f"try:\n            {ASK}\n        except Exception:\n            {ASK}",
    ),
    Mutant(
        7,
        "u comes from a seed",
        REFEREE + "flow.py",
        "generator.integers(FINE, size=shape)",
        "np.random.default_rng(0).integers(FINE, size=shape)",
    ),
    Mutant(
        7,
        "the noise of a flow comes from a seed",
        REFEREE + "flow.py",
        "generator.standard_normal((n, dims))",
        "np.random.default_rng(0).standard_normal((n, dims))",
    ),
    Mutant(
        7,
        "the noise of a decoder comes from a seed",
        REFEREE + "latent.py",
        "generator.standard_normal((n, frozen.latents))",
        "np.random.default_rng(0).standard_normal((n, frozen.latents))",
    ),
    Mutant(
        8,
        "the second party of a flow is told u",
        REFEREE + "flow.py",
        '{"z": z}',
        '{"z": z, "u": asked.u}',
    ),
    Mutant(
        8,
        "the decoder is told what the encoder said",
        REFEREE + "latent.py",
        '{"z": z}',
        '{"z": z, "again": z}',
    ),
    Mutant(
        9,
        "z come in the order of the images, to a flow",
        REFEREE + "flow.py",
        "z, generator.permutation(n))",
        "z, np.arange(n))",
    ),
    Mutant(
        9,
        "z come in the order of the images, to a decoder",
        REFEREE + "latent.py",
        ", generator.permutation(n)\n    try:",
        ", np.arange(n)\n    try:",
    ),
    Mutant(
        10, "any share for public data", "autograder/rubric.py", "PUBLIC_SHARE = 0.2", "PUBLIC_SHARE = 1.0"
    ),
)


def noticed_by(mutant: Mutant | None, copy: Path) -> list[str]:
    """The first test of the mutant's rule (of all rules for None) that fails in a copy of the course."""
    if mutant is None:
        return harness.failing(copy, RULES, "rule_", typed=False)
    bug = mutant.of_the_harness()
    with harness.patched(copy, bug):
        return harness.failing(copy, bug.nodes, bug.only, typed=False)


def main() -> int:
    """Print the table; 0 when the untouched source passes and every mutant is noticed."""
    harness.warm_up()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        copy = harness.copied(Path(folder))
        for mutant in (None, *MUTANTS):
            tests = noticed_by(mutant, copy)
            good &= bool(tests) == (mutant is not None)
            rule, what = (0, "nothing taken out") if mutant is None else (mutant.rule, mutant.what)
            where = "" if mutant is None else mutant.file
            print(f"{rule:2} | {where} | {what} | {'; '.join(tests) or 'no test fails'}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
