"""The example class: each student is the release, solved, with one named change.

    python -m tests.submissions.make            write tests/submissions/hw1/
    python -m tests.submissions.make --check    fail if what is there is not what this file makes

A student's folder has the name of what the student does. What the grader must make of each is in
`expected.py`.
"""

import csv
import io
import json
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

from autograder.release import solved
from tests.submissions import attacks

__all__ = ["ASSIGNMENT", "CLASS", "HOSTILE", "STUDENTS", "files", "main", "solution"]

ROOT = Path(__file__).resolve().parents[2]
CLASS = Path(__file__).resolve().parent / "hw1"
ASSIGNMENT = "hw1_autoregressive"

Cell = dict[str, Any]
Notebook = dict[str, Any]
Edit = Callable[[Notebook], None]


# One edit of a notebook each.


def replace(cell: str, old: str, new: str) -> Edit:
    """Change a passage that occurs once in a cell; fails loudly when the solution has been rewritten."""

    def edit(notebook: Notebook) -> None:
        source = find(notebook, cell)["source"]
        if source.count(old) != 1:
            raise ValueError(f"{old!r} occurs {source.count(old)} times in cell {cell!r}, expected once")
        find(notebook, cell)["source"] = source.replace(old, new)

    return edit


def write(cell: str, source: str) -> Edit:
    """Put something else into a cell."""
    return lambda notebook: find(notebook, cell).update(source=source.strip())


def append(cell: str, source: str) -> Edit:
    """Write more at the end of a cell."""
    return lambda notebook: find(notebook, cell).update(
        source=find(notebook, cell)["source"] + "\n\n\n" + source.strip()
    )


def unsolved(*cells: str) -> Edit:
    """Leave cells as they were given."""

    def edit(notebook: Notebook) -> None:
        for cell in cells:
            find(notebook, cell)["source"] = find(released(), cell)["source"]

    return edit


def own_cell(after: str | None, source: str, number: int = 1) -> Edit:
    """Add a cell of one's own after another one; None: at the end."""

    def edit(notebook: Notebook) -> None:
        at = len(notebook["cells"]) if after is None else notebook["cells"].index(find(notebook, after)) + 1
        notebook["cells"].insert(at, code_cell(f"mine-{number}", source.strip()))

    return edit


def delete(*cells: str) -> Edit:
    """Delete cells."""

    def edit(notebook: Notebook) -> None:
        for cell in cells:
            notebook["cells"].remove(find(notebook, cell))

    return edit


def duplicate(*cells: str) -> Edit:
    """Copy and paste a cell below itself: metadata and all, with a new id, as Jupyter does."""

    def edit(notebook: Notebook) -> None:
        for cell in cells:
            original = find(notebook, cell)
            copy = deepcopy(original) | {"id": f"copy-of-{cell}"}
            notebook["cells"].insert(notebook["cells"].index(original) + 1, copy)

    return edit


def idle(**given: str) -> Edit:
    """Everything filled in, nothing done: functions answer zeros, models are uniform."""

    def edit(notebook: Notebook) -> None:
        sources = {
            **attacks.IDLE_FUNCTIONS,
            "histogram-model": attacks.UNIFORM_HISTOGRAM,
            "mixture-model": attacks.UNIFORM_MIXTURE,
            "made-model": attacks.UNIFORM_MADE,
            "made-train": attacks.UNIFORM_TRAINING,
            **{cell.replace("_", "-"): source for cell, source in given.items()},
        }
        for cell, source in sources.items():
            write(cell, source)(notebook)

    return edit


def nothing() -> Edit:
    """Nothing filled in at all."""
    return unsolved(
        "mean-bits-per-dim",
        "fit-histogram",
        "histogram-model",
        "discretised-logistic",
        "mixture-model",
        "mask",
        "made-model",
        "made-train",
        "written",
    )


# Whoever hands in something broken, buggy or unfinished.

_LEAK = replace(
    "made-model", "MaskedLinear(before, outputs, strict=True)", "MaskedLinear(before, outputs, strict=False)"
)
_IN_TRAINING = "    return training.fit(\n        model,\n        glyphs"


def _while_training(source: str) -> Edit:
    lines = "".join(f"    {line}\n" for line in source.strip().splitlines())
    return replace("made-train", _IN_TRAINING, lines + _IN_TRAINING)


STUDENTS: dict[str, tuple[Edit, ...]] = {
    "perfect": (),
    "perfect-but-over-time": (
        own_cell(None, "import time\n\nwhile True:\n    time.sleep(1)  # one more experiment"),
    ),
    "half-done": (unsolved("mixture-model", "mask", "made-model", "made-train", "written"),),
    "untouched": (nothing(),),
    "leaks-by-one": (_LEAK,),
    "claims-nats": (replace("mean-bits-per-dim", " / math.log(2)", ""),),
    "samples-in-wrong-order": (
        replace("made-model", "in self.order.tolist():", "in range(len(self.order)):"),
    ),
    "closed-tails": (
        replace(
            "discretised-logistic",
            "return torch.where(x == 0, below, torch.where(x == levels - 1, above, inside))",
            "return inside",
        ),
    ),
    "raises-in-problem-1": (
        replace(
            "fit-histogram",
            "counts = torch.bincount(x, minlength=levels).double()",
            "counts = torch.bincount(x, size=levels)",
        ),
    ),
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
        delete("mixture-text", "made-check", "histogram-data"),
        duplicate("fit-histogram", "mask", "made-graded"),
        write("setup", "import torch  # all I need"),
    ),
    "uses-the-library": (
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
    "answers-nan-when-unsure": (append("made-model", attacks.NOT_A_NUMBER),),
    "orders-late": (
        append("made-model", attacks.LATE_ORDERING),
        own_cell(None, attacks.LATE_ORDERING_SERVER),
    ),
    "replays-training-images": (append("made-model", attacks.REPLAY_TRAINING_IMAGES),),
    "forks": (nothing(), own_cell("setup", attacks.FORK_STORM)),
    "answers-too-much": tuple(write(cell, source) for cell, source in attacks.HUGE_ANSWERS.items()),
}


# Notebooks.


def code_cell(name: str, source: str) -> Cell:
    """A cell as Jupyter makes it."""
    empty = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    return empty | {"id": name, "source": source}


def find(notebook: Notebook, cell: str) -> Cell:
    """The cell with this id."""
    found = [c for c in notebook["cells"] if c["id"] == cell]
    if len(found) != 1:
        raise ValueError(f"{len(found)} cells have the id {cell!r}, expected one")
    return found[0]


def released() -> Notebook:
    """What students were given."""
    return json.loads((ROOT / "assignments" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb").read_text())


def solution() -> Notebook:
    """The release with every solution filled in, without the marks around it."""
    notebook = released()
    for cell in solved(ROOT / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.py").cells:
        lines = [line for line in cell.source.split("\n") if line.strip() not in _MARKS]
        find(notebook, cell.id)["source"] = "\n".join(lines)
    return notebook


_MARKS = {"### BEGIN SOLUTION", "### END SOLUTION"}


def files() -> dict[str, str]:
    """The class folder: path → content."""
    good = solution()
    texts = {}
    for student, edits in {**STUDENTS, **HOSTILE}.items():
        notebook = deepcopy(good)
        for edit in edits:
            edit(notebook)
        texts[student] = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    texts["unreadable"] = texts["perfect"][: len(texts["perfect"]) // 2]
    content = {f"submitted/{s}/{ASSIGNMENT}/{ASSIGNMENT}.ipynb": text for s, text in texts.items()}
    return {"roster.csv": _roster([*texts, "missing"]), **content}


def _roster(students: list[str]) -> str:
    """Generous limits for all but those who exceed them: a busy machine must not change a verdict."""
    factors = {student: FACTORS.get(student, 4) for student in sorted(students)}
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("student", "time_factor"), *factors.items()])
    return text.getvalue()


FACTORS = {"loops-for-ever": 1, "perfect-but-over-time": 2}


def stale() -> list[str]:
    """Files that are not what they should be, or should not be there."""
    wanted = files()
    there = {str(path.relative_to(CLASS)) for path in CLASS.rglob("*") if path.is_file()}
    changed = [name for name, text in wanted.items() if name in there and (CLASS / name).read_text() != text]
    return sorted(changed + list(there ^ set(wanted)))


def main(arguments: list[str]) -> int:
    """Write the class, or check it."""
    different = stale()
    if "--check" in arguments:
        print("\n".join(different) or "the class is up to date")
        return bool(different)
    wanted = files()
    for name in different:
        path = CLASS / name
        if name not in wanted:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[name])
    print(f"{len(different)} files written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
