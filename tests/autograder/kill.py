"""Kill a grader at random moments and let it go on: nothing finished is lost, nothing finished runs twice.

The undisturbed run and the disturbed one share a batch, hence a secret, hence every draw: their results must
be the same. As a program it does so with real sandboxes and a real class:

    python -m tests.autograder.kill hw1_autoregressive --class tests/submissions/hw1 --kills 20
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

__all__ = ["check_journal", "disturbed", "outcomes", "same_batch", "window"]

# Not functions of the draws: how long it took.
IGNORED = {"seconds"}


def disturbed(
    start: Callable[[], subprocess.Popen], out: Path, kills: int, window: float, draw: random.Random
) -> int:
    """Run what `start` starts, killed `kills` times, then to its end.

    A kill comes within `window` seconds after the journal grew by a few lines: some submissions are finished
    between two kills, and some are not, on a slow machine too. Returns how many kills found it at work; a run
    that ends before its kill ends the killing.
    """
    hit = 0
    for _ in range(kills):
        process = start()
        _until_it_works(process, out, draw.randint(1, 4))
        try:
            process.wait(draw.uniform(0, window))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            hit += 1
    assert start().wait() == 0
    return hit


def _until_it_works(process: subprocess.Popen, out: Path, lines: int) -> None:
    """Wait until the journal has so many lines more, or the process ends."""
    journal = out / "journal.jsonl"

    def length() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    enough = length() + lines
    while process.poll() is None and length() < enough:
        time.sleep(0.01)


def same_batch(first: Path, second: Path) -> None:
    """Let a second folder of results be of the same batch as the first, so that both draw the same."""
    second.mkdir()
    shutil.copy(first / "batch.json", second / "batch.json")


def window(calm: Path) -> float:
    """What a submission takes in an undisturbed run, in seconds."""
    run = [result["seconds"] for result in map(json.loads, _texts(calm)) if result["seconds"] > 0]
    return sum(run) / len(run)


def _texts(out: Path) -> list[str]:
    return [path.read_text() for path in sorted(out.glob("*/result.json"))]


def outcomes(out: Path) -> dict[str, Any]:
    """Every result, but for how long it took."""
    return {
        path.parent.name: _without(json.loads(path.read_text())) for path in sorted(out.glob("*/result.json"))
    }


def check_journal(out: Path) -> dict[str, int]:
    """How often each submission began; `AssertionError` if one began again after it was finished."""
    began: dict[str, int] = {}
    finished: set[str] = set()
    for line in (out / "journal.jsonl").read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        student = entry["student"]
        if entry["event"] == "started":
            assert student not in finished, f"{student} was finished and began again"
            began[student] = began.get(student, 0) + 1
        if entry["event"] == "graded":
            finished.add(student)
    return began


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(part) for key, part in value.items() if key not in IGNORED}
    return [_without(part) for part in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("assignment")
    parser.add_argument("--class", dest="class_folder", required=True)
    parser.add_argument(
        "--work", type=Path, default=Path("_build/kill"), help="an empty folder for the results"
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    calm, wild = chosen.work / "calm", chosen.work / "wild"
    calm.mkdir(parents=True)

    def command(out: Path) -> list[str]:
        grade = [
            sys.executable,
            "-m",
            "autograder.cli",
            "grade",
            chosen.assignment,
            "--class",
            chosen.class_folder,
        ]
        return [*grade, "--out", str(out), "--tier", "smoke"]

    subprocess.run(command(calm), check=True)
    same_batch(calm, wild)
    start = partial(subprocess.Popen, command(wild))
    hit = disturbed(start, wild, chosen.kills, window(calm), random.Random(chosen.seed))
    starts = check_journal(wild)
    assert outcomes(calm) == outcomes(wild), "the disturbed results differ"
    print(f"{hit} kills, {len(starts)} submissions, {sum(starts.values())} starts: the same results.")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
