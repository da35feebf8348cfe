"""A class from its folder to its table: what the commands `grade`, `regrade` and `report` do."""

import gc
import signal
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder import journal
from autograder.batch import Batch, alone, create_batch, read_batch, secret_of
from autograder.grades import all_results, class_table, result_path, write_grades
from autograder.pipeline import Desk, Task, grade_one, nothing_to_run, prepare
from autograder.rebuild import load_release
from autograder.receipt import rubric_hash, same_run, same_score
from autograder.reference import References
from autograder.report.text import shorten
from autograder.report.written import read_marks
from autograder.results import UNFINISHED, SubmissionResult, Verdict, read_result, write_atomically
from autograder.rubric import Rubric, load_rubric
from autograder.run import load_run
from autograder.scheduler import cores, run_all, threads_per_slot
from autograder.submission import Submission, collect
from dulcourse.errors import InfrastructureError, unknown

__all__ = ["OpenBatch", "OpenSession", "grade_class", "regrade_class", "report_class"]

OpenSession = Callable[[int], Any]  # slot -> a session in a fresh sandbox
# What opens them for a batch: `autograder.sandboxes.Sandboxes`, or in tests an answering party.
OpenBatch = Callable[[Desk], AbstractContextManager[OpenSession]]


@dataclass(frozen=True)
class _Plan:
    """What is to be done with a class: run, kept as it is, or written without running."""

    run: list[Task]
    kept: list[SubmissionResult]
    stale: list[str]  # finished under another rubric or library
    settled: list[SubmissionResult]  # nothing to run: missing or unreadable


def grade_class(
    course: Path,
    assignment: str,
    class_folder: Path,
    out: Path,
    *,
    tier: str,
    sandboxes: OpenBatch,
    slots: int | None = None,
    seed: int = 0,
    only: Collection[str] = (),
) -> int:
    """Run and score what is not finished; returns the exit status."""
    rubric = load_rubric(assignment, course / "solutions")
    rubric.tier(tier)
    submissions = _only(collect(class_folder, assignment), only)
    release = load_release(course, assignment)
    batch = create_batch(
        out, assignment=assignment, tier=tier, seed=seed, device=_device(tier), class_folder=class_folder
    )
    with alone(out):
        _sweep(out)
        desk = _desk(course, rubric, batch, release, out)
        plan = _plan(desk, submissions)
        _settle(out, plan.settled)
        if plan.stale:
            print(
                f"{len(plan.stale)} finished under another rubric or library are kept as they are; "
                f"`autograder regrade {out}` scores them again."
            )
        status = _work(desk, plan.run, slots, "graded", sandboxes)
        _conclude(desk, [submission.student for submission in submissions])
        return status


def regrade_class(
    course: Path,
    out: Path,
    *,
    sandboxes: OpenBatch,
    slots: int | None = None,
    only: Collection[str] = (),
    retrain: bool = False,
) -> int:
    """Score finished submissions again, from the same draws: an instructor's act, and logged (rule 5)."""
    batch = read_batch(out)
    rubric = load_rubric(batch.assignment, course / "solutions")
    release = load_release(course, batch.assignment)
    submissions = _only(collect(Path(batch.class_folder), batch.assignment), only)
    with alone(out):
        _sweep(out)
        desk = _desk(course, rubric, batch, release, out)
        tasks = [
            task for submission in submissions if (task := _again(desk, submission, retrain)) is not None
        ]
        journal.append(out, "regrade", students=[task.student for task in tasks], retrain=retrain)
        status = _work(desk, tasks, slots, "regraded", sandboxes)
        _conclude(desk, [submission.student for submission in submissions])
        return status


def report_class(course: Path, out: Path, *, names: bool = False) -> None:
    """Write the pages, the table and grades.csv from the results that are there."""
    batch = read_batch(out)
    rubric = load_rubric(batch.assignment, course / "solutions")
    _report(out, rubric, all_results(out), names=names)


def _desk(course: Path, rubric: Rubric, batch: Batch, release: dict, out: Path) -> Desk:
    notebook = course / "assignments" / rubric.name / f"{rubric.name}.ipynb"
    return Desk(
        rubric=rubric,
        batch=batch,
        secret=secret_of(batch),
        release=release,
        rubric_sha256=rubric_hash(rubric.folder, notebook),
        out=out,
        trusted=References(rubric, batch.tier),
    )


def _sweep(out: Path) -> None:
    """Remove what a killed grader was writing when it was killed."""
    for path in out.rglob(f".*{UNFINISHED}"):
        path.unlink()


def _plan(desk: Desk, submissions: Sequence[Submission]) -> _Plan:
    plan = _Plan([], [], [], [])
    for submission in submissions:
        task = prepare(desk, submission)
        if isinstance(task, SubmissionResult):
            plan.settled.append(task)
            continue
        before = read_result(result_path(desk.out, submission.student))
        if before is None or before.verdict is Verdict.infrastructure_error or before.receipt is None:
            plan.run.append(task)
        elif same_score(before.receipt, task.receipt):
            plan.kept.append(before)
        elif same_run(before.receipt, task.receipt):
            plan.stale.append(submission.student)
        else:
            plan.run.append(task)
    return plan


def _again(desk: Desk, submission: Submission, retrain: bool) -> Task | None:
    """The task that scores a finished submission again; None where there is nothing to score."""
    task = prepare(desk, submission)
    before = read_result(result_path(desk.out, submission.student))
    if isinstance(task, SubmissionResult) or before is None or before.receipt is None:
        return None
    if before.verdict is Verdict.infrastructure_error:
        return None
    if not same_run(before.receipt, task.receipt):
        print(f"{submission.student}: handed in anew since it was graded; run `autograder grade` first.")
        return None
    saved = None if retrain else load_run(desk.out / submission.student)
    return task.again(saved)


def _settle(out: Path, results: Sequence[SubmissionResult]) -> None:
    """Write results that need no run, unless they are there already."""
    for result in results:
        path = result_path(out, result.student)
        if read_result(path) != result:
            write_atomically(path, result.model_dump_json(indent=1))


def _work(desk: Desk, tasks: list[Task], slots: int | None, event: str, sandboxes: OpenBatch) -> int:
    """Run the tasks; the status is 2 when the machine failed some of them."""
    if not tasks:
        return 0
    desk.trusted.check()
    slots = slots or cores()
    threads = threads_per_slot(slots)  # however many are left: sums depend on it in their last digits
    _pin(threads)
    with _stoppable() as stopped, sandboxes(desk) as open_session:
        desk.trusted.warm_up()
        gc.freeze()  # what is there now stays to the end, and need not be gone through again
        failed = _with_progress(
            desk,
            tasks,
            slots,
            lambda task, slot: _one(desk, task, lambda: open_session(slot), event, stopped),
        )
    if failed:
        print(f"{len(failed)} not graded, by no fault of theirs: {', '.join(failed)}; run the command again.")
    return 2 if failed else 0


def _pin(threads: int) -> None:
    """The referee's own arithmetic takes no more cores than a submission does."""
    import torch

    torch.set_num_threads(threads)


def _one(
    desk: Desk, task: Task, open_session: Callable[[], Any], event: str, stopped: threading.Event
) -> SubmissionResult:
    """Grade one submission and put its result on disk; the result is the last file to be written.

    Nothing is written once the batch was stopped: what a sandbox does while the grader ends is not its own.
    """
    journal.append(desk.out, "started", student=task.student)
    try:
        result = grade_one(desk, task, open_session)
    except (InfrastructureError, KeyboardInterrupt, SystemExit):
        raise  # the disk is full, or somebody stops us: no other submission can do better
    except Exception as error:
        # A fault of ours is never the student's, and never silent. The other submissions go on.
        write_atomically(desk.out / task.student / "fault.txt", traceback.format_exc())
        said = shorten(" ".join(str(error).split()), 120)
        reason = f"The grader has a fault ({type(error).__name__}: {said}); fault.txt has the details."
        result = nothing_to_run(desk, task.submission, Verdict.infrastructure_error, reason)
    else:
        (desk.out / task.student / "fault.txt").unlink(missing_ok=True)
    if stopped.is_set():
        raise KeyboardInterrupt
    write_atomically(result_path(desk.out, task.student), result.model_dump_json(indent=1))
    done = "failed" if result.verdict is Verdict.infrastructure_error else event
    journal.append(desk.out, done, student=task.student, verdict=result.verdict, points=result.points)
    return result


def _with_progress(desk: Desk, tasks: list[Task], slots: int, do: Callable[[Task, int], Any]) -> list[str]:
    """Do the tasks and show how far it is; returns who could not be graded."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    failed: list[str] = []
    console = Console(stderr=True)
    columns = (
        TextColumn("grading"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(tasks))

        def finished(task: Task, result: SubmissionResult) -> None:
            if result.verdict is Verdict.infrastructure_error:
                failed.append(task.student)
            points = f"{result.points:.1f} of {result.out_of:g}"
            words = f"{task.student}: {result.verdict}, {points}, {result.seconds:.1f} s"
            console.print(words, markup=False, highlight=False)
            progress.advance(bar)

        run_all(tasks, do, slots=slots, finished=finished)
    return failed


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Whether somebody stops us. A polite kill is an interrupt: what is finished stays."""
    stopped = threading.Event()

    def stop(*_: object) -> None:
        stopped.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _conclude(desk: Desk, students: Collection[str]) -> None:
    """The report of everything in the folder, and the table of those who were asked for."""
    _report(
        desk.out, desk.rubric, [result for result in all_results(desk.out) if result.student in set(students)]
    )


def _report(out: Path, rubric: Rubric, shown: Sequence[SubmissionResult], names: bool = False) -> None:
    from rich.console import Console

    from autograder.report import write_report

    write_report(out, rubric, pseudonymous=not names)
    marks = read_marks(out / "written.csv", rubric)
    write_grades(out, rubric, all_results(out), marks)
    console = Console()
    if not console.is_terminal:
        console.width = 140  # a log is read in a wide window
    console.print(class_table(rubric, shown, marks))
    console.print(
        f"The report: {(out / 'index.html').resolve()}", markup=False, highlight=False, soft_wrap=True
    )


def _only(submissions: list[Submission], students: Collection[str]) -> list[Submission]:
    """Those asked for; everybody when nobody is named."""
    known = [submission.student for submission in submissions]
    for student in students:
        if student not in known:
            raise unknown("student", student, known)
    return [submission for submission in submissions if not students or submission.student in students]


def _device(tier: str) -> str:
    """Tier gpu runs on one; the others on processors."""
    if tier != "gpu":
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        raise InfrastructureError(
            "tier 'gpu' needs a GPU that torch can use, and there is none: pass --tier cpu."
        )
    return "cuda"
