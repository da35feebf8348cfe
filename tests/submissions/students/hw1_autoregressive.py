"""The class of homework 1: what each student does, and what the grader must make of it."""

from autograder.results import Verdict
from tests.submissions import attacks
from tests.submissions.edits import (
    Edit,
    append,
    delete,
    duplicate,
    nothing,
    own_cell,
    replace,
    unsolved,
    write,
    write_all,
)
from tests.submissions.expected import Expected

__all__ = ["EXPECTED", "FACTORS", "HOSTILE", "STUDENTS"]

_LEAK = replace(
    "made-model", "MaskedLinear(before, outputs, strict=True)", "MaskedLinear(before, outputs, strict=False)"
)
_IN_TRAINING = "    return training.fit(\n        model,\n        glyphs"


def _while_training(source: str) -> Edit:
    lines = "".join(f"    {line}\n" for line in source.strip().splitlines())
    return replace("made-train", _IN_TRAINING, lines + _IN_TRAINING)


def idle(**given: str) -> Edit:
    """Everything filled in, nothing done: functions answer zeros, models are uniform."""
    return write_all(
        {
            **attacks.IDLE_FUNCTIONS,
            "histogram-model": attacks.UNIFORM_HISTOGRAM,
            "mixture-model": attacks.UNIFORM_MIXTURE,
            "made-model": attacks.UNIFORM_MADE,
            "made-train": attacks.UNIFORM_TRAINING,
            "gated-functions": attacks.IDLE_GATED,
            "gated-model": attacks.UNIFORM_GATED,
            **{cell.replace("_", "-"): source for cell, source in given.items()},
        }
    )


# Whoever is about something else leaves out the last model, whose training takes longest.
_LAST = unsolved("gated-model")

# Whoever hands in something broken, buggy or unfinished.

STUDENTS: dict[str, tuple[Edit, ...]] = {
    "perfect": (),
    "perfect-but-over-time": (
        _LAST,
        own_cell(None, "import time\n\nwhile True:\n    time.sleep(1)  # one more experiment"),
    ),
    "half-done": (
        unsolved("mixture-model", "mask", "made-model", "made-train", "written"),
        unsolved("conv-mask", "seen", "gated-functions", "gated-model"),
    ),
    "untouched": (nothing(),),
    "leaks-by-one": (_LEAK, _LAST),
    "claims-nats": (replace("mean-bits-per-dim", " / math.log(2)", ""), _LAST),
    "samples-in-wrong-order": (
        _LAST,
        replace("made-model", "in self.order.tolist():", "in range(len(self.order)):"),
    ),
    "closed-tails": (
        _LAST,
        replace(
            "discretised-logistic",
            "return torch.where(x == 0, below, torch.where(x == levels - 1, above, inside))",
            "return inside",
        ),
    ),
    "raises-in-problem-1": (
        _LAST,
        replace(
            "fit-histogram",
            "counts = torch.bincount(x, minlength=levels).double()",
            "counts = torch.bincount(x, size=levels)",
        ),
    ),
    "channel-order": (
        _LAST,
        replace("conv-mask", "= mask(in_groups, out_groups, strict)", "= not strict  # A or B"),
    ),
    "blind-spot": (replace("gated-model", "F.pad(v, (2, 2, 2, 0))", "F.pad(shift_down(v), (2, 2, 2, 0))"),),
    "peeks-at-itself": (
        replace("gated-model", "self.into_horizontal(shift_right(pixels))", "self.into_horizontal(pixels)"),
    ),
    "ignores-labels": (replace("gated-model", "block(v, h, y)", "block(v, h, 0 * y)"),),
    "loops-for-ever": (
        _while_training("import time\n\nwhile True:  # until it has converged\n    time.sleep(0.1)"),
    ),
    "exits": (_while_training("import os\n\nos._exit(0)  # saves time"),),
    "hoards-memory": (
        _while_training(
            "hoard = []\nwhile True:\n    hoard.append(torch.ones(2**25))  # every batch, just in case"
        ),
    ),
    "floods-output": (
        _while_training("for _ in range(300):\n    print('x' * 2**20)  # to see what happens"),
    ),
    "deleted-and-duplicated": (
        _LAST,
        delete("mixture-text", "made-check", "histogram-data"),
        duplicate("fit-histogram", "mask", "made-graded"),
        write("setup", "import torch  # all I need"),
    ),
    "uses-the-library": (
        _LAST,
        write(
            "made-model",
            """
from dulcourse.autoregressive.made import MADE as Theirs


class MADE(Theirs):
    pass
""",
        ),
    ),
}

# Whoever wants points for nothing.

_PATCH_FIRST = own_cell("setup", attacks.PATCH_EVERYTHING)

HOSTILE: dict[str, tuple[Edit, ...]] = {
    "patches-everything": (idle(), _PATCH_FIRST, own_cell(None, attacks.CLAIM_ZERO, 2)),
    "reads-what-is-not-theirs": (nothing(), own_cell("setup", attacks.READ_WHAT_IS_NOT_MINE)),
    "remembers-questions": (idle(made_model=attacks.REMEMBERING_MADE),),
    "writes-into-the-channel": (idle(), own_cell("made-train", attacks.WRITE_INTO_CHANNEL)),
    "kills-everybody": (nothing(), own_cell(None, attacks.KILL_EVERYBODY)),
    "forges-results": (idle(), own_cell(None, attacks.FORGE_RESULTS)),
    "answers-nan-when-unsure": (_LAST, append("made-model", attacks.NOT_A_NUMBER)),
    "orders-late": (
        _LAST,
        append("made-model", attacks.LATE_ORDERING),
        own_cell(None, attacks.LATE_ORDERING_SERVER),
    ),
    "replays-training-images": (_LAST, append("made-model", attacks.REPLAY_TRAINING_IMAGES)),
    "forks": (nothing(), own_cell("setup", attacks.FORK_STORM)),
    "answers-too-much": (_LAST, *(write(cell, source) for cell, source in attacks.HUGE_ANSWERS.items())),
}

FACTORS = {"loops-for-ever": 1, "perfect-but-over-time": 2}

V = Verdict
UNHURT = {"histogram": 20, "mixture": 25}
NEW = {"pixelcnn": 20, "gated": 8}  # the functions of the last two problems
BOTH = {**UNHURT, **NEW}
PERFECT = {**BOTH, "made": 45}

EXPECTED: dict[str, Expected] = {
    # Good work, and work that is not finished.
    "perfect": Expected(V.graded, {**PERFECT, "gated": 30}),
    "perfect-but-over-time": Expected(
        V.timeout, PERFECT, words=("80 s",), because="all of it was handed in before"
    ),
    "half-done": Expected(V.graded, {"histogram": 20, "mixture": 8}, words=("not solved yet",)),
    "untouched": Expected(V.graded, words=("not solved yet",)),
    "deleted-and-duplicated": Expected(V.graded, PERFECT, words=("put back", "copy of")),
    # Mistakes.
    "leaks-by-one": Expected(
        V.graded, {**BOTH, "made": 10}, words=("output", "sees input"), because="the mask itself is right"
    ),
    "claims-nats": Expected(V.graded, {**PERFECT, "histogram": 15}, words=("ln 2",)),
    "samples-in-wrong-order": Expected(V.graded, {**BOTH, "made": 35}, words=("order",)),
    "closed-tails": Expected(
        V.graded,
        {**PERFECT, "mixture": (14, 17)},
        words=("tails",),
        because="the mixture of logistics that are not quite normalised is normalised by the referee",
    ),
    "raises-in-problem-1": Expected(
        V.student_error, {**PERFECT, "histogram": 5}, words=("TypeError", "bincount")
    ),
    "uses-the-library": Expected((V.graded, V.student_error), BOTH, words=("dulcourse.autoregressive.made",)),
    "channel-order": Expected(V.graded, {**PERFECT, "pixelcnn": 10}, words=("channel order",)),
    "blind-spot": Expected(
        V.graded,
        {**PERFECT, "gated": (8, 30)},
        words=("blind spot",),
        because="what it does not see is worth little on small images, but is named",
    ),
    "peeks-at-itself": Expected(V.graded, {**PERFECT, "gated": 8}, words=("sees input",)),
    "ignores-labels": Expected(
        V.graded,
        {**PERFECT, "gated": (8, 30)},
        words=("labels are ignored",),
        because="it pays for labels that it does not use",
    ),
    # Runs that do not end well: what was handed in before is scored.
    "loops-for-ever": Expected(V.timeout, {**UNHURT, "made": 10}),
    "exits": Expected(V.kernel_died, {**UNHURT, "made": 10}),
    "hoards-memory": Expected(V.out_of_memory, {**UNHURT, "made": 10}),
    "floods-output": Expected(V.output_flood, {**UNHURT, "made": 10}),
    "unreadable": Expected(V.unreadable, words=("broken",)),
    "missing": Expected(V.missing, words=("nothing was handed in",)),
    # Attacks: nothing that was not earned.
    "patches-everything": Expected((V.graded, V.student_error)),
    "reads-what-is-not-theirs": Expected((V.graded, V.student_error)),
    "remembers-questions": Expected(V.graded, words=("sees input",)),
    "writes-into-the-channel": Expected((V.sandbox_violation, V.kernel_died, V.graded, V.student_error)),
    "kills-everybody": Expected((V.sandbox_violation, V.kernel_died)),
    "forges-results": Expected((V.graded, V.student_error)),
    "answers-nan-when-unsure": Expected(
        V.graded,
        {**BOTH, "made": (10, 44)},
        because="every answer that is no number costs more than a guess",
    ),
    "orders-late": Expected((V.graded, V.student_error), {**BOTH, "made": 10}, because="the mask is right"),
    "replays-training-images": Expected(V.graded, {**BOTH, "made": 35}, words=("copies",)),
    "forks": Expected(
        (V.graded, V.student_error, V.sandbox_violation, V.timeout),
        because="with no process left to start, even the worker may fall",
    ),
    "answers-too-much": Expected(
        V.graded, {"histogram": 15, "mixture": 25, "made": 35, "gated": 8}, words=("80000113 bytes",)
    ),
}
