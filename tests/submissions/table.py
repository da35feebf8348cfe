"""Expected and got, for every student of an example class, as Markdown.

    python -m tests.submissions.table _build/grades            all classes that were graded there

Exit status 1 if anybody got what the table does not allow.
"""

import sys
from pathlib import Path

from autograder.grades import all_results
from autograder.results import SubmissionResult
from tests.submissions.expected import Expected
from tests.submissions.make import HOMEWORKS, Homework

__all__ = ["main", "wrong"]


def said(result: SubmissionResult) -> str:
    """Every word of a result, in one text."""
    errors = [f"{error.name}: {error.message}" for error in result.errors]
    words = [word for item in result.items for word in item.words]
    return "\n".join([result.reason, *words, *errors, *result.notes])


def got(result: SubmissionResult, problem: str) -> float:
    """The points of one problem."""
    return sum(item.points or 0 for item in result.items if item.problem == problem)


def wrong(expected: Expected, result: SubmissionResult) -> list[str]:
    """What is not as it should be, in words."""
    found = [] if result.verdict in expected.verdicts else [f"verdict {result.verdict}"]
    for problem in dict.fromkeys(item.problem for item in result.items):
        least, most = expected.limits(problem)
        if not least - 1e-9 <= got(result, problem) <= most + 1e-9:
            found.append(f"{problem} {got(result, problem):.2f}")
    text = said(result).lower()
    return found + [f"{words!r} is not said" for words in expected.words if words.lower() not in text]


def _allowed(expected: Expected, problem: str) -> str:
    least, most = expected.limits(problem)
    return f"{least:g}" if least == most else f"{least:g}–{most:g}"


def _line(student: str, expected: Expected, result: SubmissionResult, problems: list[str]) -> str:
    cells = [f"{_allowed(expected, problem)} / {got(result, problem):.1f}" for problem in problems]
    verdicts = " or ".join(verdict.value for verdict in expected.verdicts)
    words = ", ".join(f"“{words}”" for words in expected.words) or "–"
    state = "; ".join(wrong(expected, result)) or "as expected"
    return "| " + " | ".join([student, verdicts, result.verdict.value, *cells, words, state]) + " |"


def main(folder: Path) -> int:
    """Print the tables; the number of students who got something else, at most 1."""
    bad = 0
    for homework in map(Homework.of, HOMEWORKS):
        results = {result.student: result for result in all_results(folder / homework.assignment)}
        if not results:
            continue
        problems = list(dict.fromkeys(item.problem for item in results["perfect"].items))
        head = ["student", "verdict expected", "got", *(f"{p}: expected / got" for p in problems), "said", ""]
        print(f"\n## {homework.assignment}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
        for student, expected in homework.expected.items():
            if student in results:
                print(_line(student, expected, results[student], problems))
        bad += sum(bool(wrong(homework.expected[name], result)) for name, result in results.items())
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "_build/grades")))
