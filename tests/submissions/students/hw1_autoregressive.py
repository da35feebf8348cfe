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


def _small(blocks: int) -> Edit:
    """What is wrong with a Gated PixelCNN shows in a small one, which is trained and scored sooner."""
    return replace("gated-model", "channels=CHANNELS, blocks=4", f"channels=8, blocks={blocks}")


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


# Whose mistake or attack lies elsewhere leaves a model out: to train and score it costs seconds and shows
# nothing. The last one takes longest.
_LAST = unsolved("gated-model")
_HISTOGRAM_ALONE = unsolved("mixture-model", "made-model", "gated-model")
_MIXTURE_ALONE = unsolved("histogram-model", "made-model", "gated-model")
_MADE_ALONE = unsolved("histogram-model", "mixture-model", "gated-model")
_GATED_ALONE = unsolved("histogram-model", "mixture-model", "made-model")
_NO_MODELS = unsolved("histogram-model", "mixture-model", "made-model", "gated-model")
_NO_MIXTURE = unsolved("mixture-model")

# Whoever hands in something broken, buggy or unfinished.

STUDENTS: dict[str, tuple[Edit, ...]] = {
    "perfect": (),
    "good-but-over-time": (
        _NO_MIXTURE,
        _LAST,
        own_cell(None, "import time\n\nwhile True:\n    time.sleep(1)  # one more experiment"),
    ),
    "half-done": (
        unsolved("mixture-model", "mask", "made-model", "made-train", "written"),
        unsolved("conv-mask", "seen", "gated-functions", "gated-model"),
    ),
    "untouched": (nothing(),),
    "leaks-by-one": (_LEAK, _MADE_ALONE),
    "claims-nats": (replace("mean-bits-per-dim", " / math.log(2)", ""), _HISTOGRAM_ALONE),
    "samples-in-wrong-order": (
        _MADE_ALONE,
        replace("made-model", "in self.order.tolist():", "in range(len(self.order)):"),
    ),
    "closed-tails": (
        _MIXTURE_ALONE,
        replace(
            "discretised-logistic",
            "return torch.where(x == 0, below, torch.where(x == levels - 1, above, inside))",
            "return inside",
        ),
    ),
    "raises-in-problem-1": (
        unsolved("made-model", "gated-model"),
        replace(
            "fit-histogram",
            "counts = torch.bincount(x, minlength=levels).double()",
            "counts = torch.bincount(x, size=levels)",
        ),
    ),
    "channel-order": (
        _NO_MODELS,
        replace("conv-mask", "= mask(in_groups, out_groups, strict)", "= not strict  # A or B"),
    ),
    "blind-spot": (
        _GATED_ALONE,
        _small(blocks=3),  # which would see the whole past
        replace("gated-model", "F.pad(v, (2, 2, 2, 0))", "F.pad(shift_down(v), (2, 2, 2, 0))"),
    ),
    "peeks-at-itself": (
        _GATED_ALONE,
        _small(blocks=1),
        replace("gated-model", "self.into_horizontal(shift_right(pixels))", "self.into_horizontal(pixels)"),
    ),
    "ignores-labels": (
        _GATED_ALONE,
        _small(blocks=1),
        replace("gated-model", "block(v, h, y)", "block(v, h, 0 * y)"),
    ),
    "loops-for-ever": (
        _NO_MIXTURE,
        _while_training("import time\n\nwhile True:  # until it has converged\n    time.sleep(0.1)"),
    ),
    "exits": (
        _NO_MIXTURE,
        _while_training("import os\n\nos._exit(0)  # saves time"),
    ),
    "hoards-memory": (
        _NO_MIXTURE,
        _while_training(
            "hoard = []\nwhile True:\n    hoard.append(torch.ones(2**25))  # every batch, just in case"
        ),
    ),
    "floods-output": (
        _NO_MIXTURE,
        _while_training("for _ in range(300):\n    print('x' * 2**20)  # to see what happens"),
    ),
    "deleted-and-duplicated": (
        _NO_MIXTURE,
        _LAST,
        delete("mixture-text", "made-check", "histogram-data"),
        duplicate("fit-histogram", "mask", "made-graded"),
        write("setup", "import torch  # all I need"),
    ),
    "uses-the-library": (
        _NO_MIXTURE,
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
    "remembers-questions": (idle(made_model=attacks.REMEMBERING_MADE), _MADE_ALONE),
    "writes-into-the-channel": (idle(), _MADE_ALONE, own_cell("made-train", attacks.WRITE_INTO_CHANNEL)),
    "kills-everybody": (nothing(), own_cell(None, attacks.KILL_EVERYBODY)),
    "forges-results": (idle(), _MADE_ALONE, own_cell(None, attacks.FORGE_RESULTS)),
    "answers-nan-when-unsure": (_MADE_ALONE, append("made-model", attacks.NOT_A_NUMBER)),
    "orders-late": (
        _MADE_ALONE,
        append("made-model", attacks.LATE_ORDERING),
        own_cell(None, attacks.LATE_ORDERING_SERVER),
    ),
    "replays-training-images": (_MADE_ALONE, append("made-model", attacks.REPLAY_TRAINING_IMAGES)),
    "forks": (nothing(), own_cell("setup", attacks.FORK_STORM)),
    "answers-too-much": (
        _MADE_ALONE,
        *(write(cell, source) for cell, source in attacks.HUGE_ANSWERS.items()),
    ),
}

FACTORS = {"loops-for-ever": 1, "good-but-over-time": 1.25}

V = Verdict
FUNCTIONS = {"histogram": 10, "mixture": 8, "made": 10, "pixelcnn": 20, "gated": 8}
BEFORE_DEATH = {"histogram": 20, "mixture": 8, "made": 10}

EXPECTED: dict[str, Expected] = {
    # Good work, and work that is not finished.
    "perfect": Expected(V.graded, {"histogram": 20, "mixture": 25, "made": 45, "pixelcnn": 20, "gated": 30}),
    "good-but-over-time": Expected(
        V.timeout,
        {**FUNCTIONS, "histogram": 20, "made": 45},
        words=("50 s",),
        because="all of it was handed in before",
    ),
    "half-done": Expected(V.graded, {"histogram": 20, "mixture": 8}, words=("not solved yet",)),
    "untouched": Expected(V.graded, words=("not solved yet",)),
    "deleted-and-duplicated": Expected(
        V.graded, {**FUNCTIONS, "histogram": 20, "made": 45}, words=("put back", "copy of")
    ),
    # Mistakes.
    "leaks-by-one": Expected(
        V.graded, FUNCTIONS, words=("output", "sees input"), because="the mask itself is right"
    ),
    "claims-nats": Expected(V.graded, {**FUNCTIONS, "histogram": 15}, words=("ln 2", "in nats; divide")),
    "samples-in-wrong-order": Expected(V.graded, {**FUNCTIONS, "made": 35}, words=("order",)),
    "closed-tails": Expected(
        V.graded,
        {**FUNCTIONS, "mixture": (14, 17)},
        words=("tails",),
        because="the mixture of logistics that are not quite normalised is normalised by the referee",
    ),
    "raises-in-problem-1": Expected(
        V.student_error, {**FUNCTIONS, "histogram": 5, "mixture": 25}, words=("TypeError", "bincount")
    ),
    "uses-the-library": Expected(
        (V.graded, V.student_error),
        {**FUNCTIONS, "histogram": 20, "made": 0},
        words=("dulcourse.autoregressive.made",),
    ),
    "channel-order": Expected(V.graded, {**FUNCTIONS, "pixelcnn": 10}, words=("channel order",)),
    "blind-spot": Expected(
        V.graded,
        {**FUNCTIONS, "gated": (8, 30)},
        words=("blind spot", "(row 1, column 0) does not see input 0 (row 0, column 0)"),
        because="what it does not see is worth little on small images, but is named",
    ),
    "peeks-at-itself": Expected(V.graded, FUNCTIONS, words=("sees input",)),
    "ignores-labels": Expected(
        V.graded,
        {**FUNCTIONS, "gated": (8, 30)},
        words=("labels are ignored",),
        because="it pays for labels that it does not use",
    ),
    # Runs that do not end well: what was handed in before is scored.
    "loops-for-ever": Expected(V.timeout, BEFORE_DEATH),
    "exits": Expected(V.kernel_died, BEFORE_DEATH),
    "hoards-memory": Expected(V.out_of_memory, BEFORE_DEATH),
    "floods-output": Expected(V.output_flood, BEFORE_DEATH),
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
        {**FUNCTIONS, "made": (10, 44)},
        because="every answer that is no number costs more than a guess",
    ),
    "orders-late": Expected(
        (V.graded, V.student_error),
        {**FUNCTIONS, "made": (10, 15)},
        words=("sees input",),
        because="the mask is right; the model costs what independent pixels cost, by luck a little less",
    ),
    "replays-training-images": Expected(V.graded, {**FUNCTIONS, "made": 35}, words=("copies",)),
    "forks": Expected(
        (V.graded, V.student_error, V.sandbox_violation, V.timeout),
        because="with no process left to start, even the worker may fall",
    ),
    "answers-too-much": Expected(
        V.graded, {"histogram": 5, "mixture": 8, "made": 35, "gated": 8}, words=("80000113 bytes",)
    ),
}
