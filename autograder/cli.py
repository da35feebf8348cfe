"""The command `autograder`: thin, every command is a few calls, every failure a sentence.

Exit status: 0 all well · 1 what was asked cannot be done as asked · 2 this machine lacks something.
"""

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from dulcourse.errors import InfrastructureError, UsageError

__all__ = ["app", "main"]

# Newer versions of typer carry a click of their own, so the class is found through typer.
UsageOfCommand = typer.BadParameter.__mro__[2]
INTERRUPTED = 130  # what typer makes of Ctrl-C
STOPPED = "stopped; what is finished is kept, and the same command goes on from there."

# Plain help: the fancy kind takes longer to import than to read.
app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)

Assignment = Annotated[str, typer.Argument(help="The homework's name, such as hw1_autoregressive.")]
Course = Annotated[Path | None, typer.Option(help="The course's folder: holds solutions/ and assignments/.")]
TierName = Annotated[str, typer.Option(help="How big a run: smoke (seconds), cpu (minutes) or gpu.")]
Slots = Annotated[
    int | None, typer.Option(min=1, help="Submissions at once; one a core unless said otherwise.")
]
Results = Annotated[Path, typer.Argument(help="The --out of `autograder grade`.")]


@app.callback()
def _about() -> None:
    """Grade notebooks behind a wall, by a referee whose scores cannot be faked."""


@app.command()
def release(
    assignment: Annotated[str | None, typer.Argument(help="The homework's name, or --all.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every homework in solutions/.")] = False,
    check: Annotated[
        bool, typer.Option(help="Write nothing; fail when a file is not what its source gives.")
    ] = False,
    course: Course = None,
) -> None:
    """Make the students' copy of a homework from its source.

    Example: autograder release hw1_autoregressive
    """
    folder = _course(course)
    names = _names(folder, assignment, all_)
    from autograder.release import release as make

    for name in names:
        changed = make(name, folder / "solutions", folder / "assignments", check=check)
        typer.echo(
            f"{name}: {', '.join(path.name for path in changed) + ' written' if changed else 'up to date'}"
        )


@app.command()
def grade(
    assignment: Assignment,
    class_folder: Annotated[
        Path, typer.Option("--class", help="The class: submitted/<student>/…, roster.csv.")
    ],
    out: Annotated[Path, typer.Option(help="The folder of results; the same one goes on where it stopped.")],
    tier: TierName = "cpu",
    slots: Slots = None,
    seed: Annotated[int, typer.Option(help="The seed that notebooks are given.")] = 0,
    student: Annotated[list[str] | None, typer.Option(help="Only this student; may be repeated.")] = None,
    course: Course = None,
) -> None:
    """Run and score every submission of a class that is not finished yet.

    Example: autograder grade hw1_autoregressive --class class --out grades --slots 4
    """
    from autograder.sandboxes import Sandboxes

    with Sandboxes(slots=slots, gpu=tier == "gpu") as sandboxes:
        from autograder.grading import grade_class

        status = grade_class(
            _course(course),
            assignment,
            class_folder,
            out,
            tier=tier,
            sandboxes=sandboxes,
            slots=slots,
            seed=seed,
            only=student or (),
        )
    _exit(status)


@app.command()
def regrade(
    out: Results,
    student: Annotated[list[str] | None, typer.Option(help="Only this student; may be repeated.")] = None,
    retrain: Annotated[bool, typer.Option(help="Run the notebooks again too, with the same draws.")] = False,
    slots: Slots = None,
    course: Course = None,
) -> None:
    """Score finished submissions again from their saved weights, after a change of the rubric or the library.

    Example: autograder regrade grades --student ada
    """
    from autograder.batch import read_batch
    from autograder.sandboxes import Sandboxes

    with Sandboxes(slots=slots, gpu=read_batch(out).device == "cuda") as sandboxes:
        from autograder.grading import regrade_class

        status = regrade_class(
            _course(course), out, sandboxes=sandboxes, slots=slots, only=student or (), retrain=retrain
        )
    _exit(status)


@app.command()
def report(
    out: Results,
    names: Annotated[
        bool, typer.Option("--names", help="Show names in the class table, not pseudonyms.")
    ] = False,
    course: Course = None,
) -> None:
    """Write the pages and grades.csv again, with the points that were filled into written.csv.

    Example: autograder report grades
    """
    from autograder.grading import report_class

    report_class(_course(course), out, names=names)


@app.command()
def calibrate(
    assignment: Assignment,
    tier: TierName = "cpu",
    seeds: Annotated[int, typer.Option(min=5, help="Trainings of each reference; the first is kept.")] = 6,
    only: Annotated[list[str] | None, typer.Option(help="A model to calibrate; all when not given.")] = None,
    course: Course = None,
) -> None:
    """Train the reference models and measure their spread: the thresholds of the rubric come from it.

    Example: autograder calibrate hw1_autoregressive --tier cpu --only gated
    """
    from autograder.calibrate import calibrate as run

    for line in run(_course(course) / "solutions", assignment, tier, seeds, only):
        typer.echo(line)


@app.command()
def doctor(
    out: Annotated[Path, typer.Option(help="Where results will be written.")] = Path(),
    course: Course = None,
) -> None:
    """Say what this machine lacks for grading, and what mends it.

    Example: autograder doctor
    """
    from autograder.doctor import examine

    findings = examine(_course(course), out)
    for finding in findings:
        sign = "ok     " if finding.ok else "missing" if finding.optional else "MISSING"
        typer.echo(f"{sign}  {finding.name:9} {finding.said}")
        if not finding.ok and finding.fix:
            typer.echo(f"{'':9}{'':9} → {finding.fix}")
    _exit(0 if all(finding.ok or finding.optional for finding in findings) else 2)


def main() -> None:
    """The command line, with every failure as one sentence and an exit status."""
    # What is imported is no garbage: to look for some as often as Python does takes a fifth of the imports.
    gc.set_threshold(50_000)
    sys.exit(_status(sys.argv[1:]))


def _status(arguments: list[str]) -> int:
    try:
        status = app(arguments, standalone_mode=False)
        return _say(STOPPED, 1) if status == INTERRUPTED else status or 0
    except UsageError as error:
        return _say(str(error), 1)
    except InfrastructureError as error:
        return _say(str(error), 2)
    except UsageOfCommand as error:
        error.show()
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return _say(STOPPED, 1)
    except OSError as error:
        return _say(f"{error.filename or 'the system'}: {error.strerror or error}; mend it and run again.", 2)


def _say(sentence: str, status: int) -> int:
    typer.echo(f"autograder: {sentence}", err=True)
    return status


def _exit(status: int) -> None:
    if status:
        raise typer.Exit(status)


def _course(given: Path | None) -> Path:
    """Where the homework lies: as told, else here, else beside the grader's own package."""
    places = [given] if given else [Path.cwd(), Path(__file__).resolve().parents[1]]
    for place in places:
        if (place / "solutions").is_dir():
            return place
    raise UsageError(f"no solutions/ in {str(places[0])!r}: run in the course's folder, or pass --course.")


def _names(course: Path, assignment: str | None, every: bool) -> list[str]:
    if every == (assignment is not None):
        raise UsageError("name one assignment, or pass --all: `autograder release hw1_autoregressive`.")
    return (
        sorted(path.parent.name for path in course.glob("solutions/*/rubric.py")) if every else [assignment]
    )


if __name__ == "__main__":
    main()
