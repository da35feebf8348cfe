"""What a verdict, an item and a missing point are called."""

from dataclasses import dataclass
from typing import Literal

from autograder.report.text import shorten
from autograder.results import ItemResult, SubmissionResult, Verdict

__all__ = ["KINDS", "NEARLY", "PARTS", "STATES", "State", "item_name", "why_not_more"]

NEARLY = 0.005  # points; less is not shown, so it is not missed

Tone = Literal["good", "warn", "bad", "ours", "none"]


@dataclass(frozen=True)
class State:
    """A verdict for people: a few words, a sign (colour is never the only one), a sentence."""

    title: str
    tone: Tone
    sentence: str

    @property
    def sign(self) -> str:
        return {"good": "✓", "warn": "!", "bad": "×", "ours": "?", "none": "–"}[self.tone]


KEPT = "Whatever it had handed in before was kept and scored from its saved weights."

STATES = {
    Verdict.graded: State(
        "graded", "good", "The notebook ran to its end, and what it handed in was measured."
    ),
    Verdict.student_error: State(
        "a cell failed",
        "warn",
        "A cell raised an exception. The cells of other problems were run and scored.",
    ),
    Verdict.timeout: State("out of time", "warn", f"The notebook did not finish within its time. {KEPT}"),
    Verdict.out_of_memory: State(
        "out of memory", "warn", f"The notebook needed more memory than it had. {KEPT}"
    ),
    Verdict.kernel_died: State(
        "kernel died", "warn", f"The notebook's kernel ended in the middle of a run. {KEPT}"
    ),
    Verdict.output_flood: State(
        "too much output", "warn", f"The notebook printed more than is allowed. {KEPT}"
    ),
    Verdict.sandbox_violation: State(
        "sandbox violated", "bad", "The notebook interfered with the sandbox that it ran in, and scores 0."
    ),
    Verdict.unreadable: State(
        "unreadable", "bad", "The file that was handed in is not a notebook that can be run."
    ),
    Verdict.missing: State("nothing handed in", "none", "There is no notebook for this homework."),
    Verdict.infrastructure_error: State(
        "not graded: our fault",
        "ours",
        "The grader failed, not the student. Nothing is charged; grade it again.",
    ),
}

KINDS = {"probe": "Function", "model": "Model", "sampler": "Samples of", "written": "Written answer"}
# What the bits/dim of a family are made of; the signs are such that they add up.
PARTS = {
    "kl": "of it, for z: what its sender does not get back",
    "reconstruction": "of it, for the image once z is known",
    "prior": "of it, z under the prior",
    "log_det": "of it, what the map stretches (minus log-determinant)",
    "cap": "taken off it: no image costs more than its cap",
    "label_gap": "what wrong labels cost in addition",
}
UNGRADED = {Verdict.missing, Verdict.unreadable, Verdict.infrastructure_error, Verdict.sandbox_violation}


def item_name(item: ItemResult) -> str:
    """`function:mask` -> "Function mask"."""
    return f"{KINDS[item.kind]} {item.id.partition(':')[2]}"


def why_not_more(result: SubmissionResult) -> str:
    """One line for the class table: where most points were lost, why, and how many other items lost some."""
    if result.verdict in UNGRADED:
        return result.reason or STATES[result.verdict].sentence
    lost = [item for item in result.items if item.points is not None and item.points < item.out_of - NEARLY]
    if not lost:
        return result.reason
    worst = max(lost, key=lambda item: item.out_of - item.points)
    why = f"{item_name(worst)}: {shorten(worst.words[0], 160)}" if worst.words else item_name(worst)
    return why if len(lost) == 1 else f"{why} (+ {len(lost) - 1} more)"
