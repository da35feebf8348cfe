"""What chapters are written with, gone wrong."""

from tests.mutants.harness import Mutant

QUIZ, KIT = "book/_ext/quiz.py", "book/kit.py"
TESTS = "tests/book/test_kit.py::"
MUTANTS = (
    Mutant(
        "right answers are called wrong",
        QUIZ,
        "right=mark == RIGHT",
        "right=mark != RIGHT",
        TESTS + "test_a_choice_is_a_fold_with_its_verdict_and_reason",
    ),
    Mutant(
        "the mark of the right answer stays in its text",
        QUIZ,
        "text[0].astext()[len(mark) :]",
        "text[0].astext()",
        TESTS + "test_a_choice_is_a_fold_with_its_verdict_and_reason",
    ),
    Mutant(
        "a question may have no right answer",
        QUIZ,
        'if len({one["right"] for one in found}) != 2:',
        "if not found:",
        TESTS + "test_a_quiz_that_is_not_one_stops_the_build",
    ),
    Mutant(
        "a choice need not say why",
        QUIZ,
        "if not reason:",
        "if False:",
        TESTS + "test_a_quiz_that_is_not_one_stops_the_build",
    ),
    Mutant(
        "the spread is printed for the error of the mean",
        KIT,
        "2 * statistics.stdev(bits) / len(bits) ** 0.5 if",
        "2 * statistics.stdev(bits) if",
        TESTS + "test_numbers_are_those_of_the_file",
    ),
    Mutant(
        "another bound of a model shows the model's own number",
        KIT,
        'split["also"][row] for split',
        'split["test"] for split',
        TESTS + "test_numbers_are_those_of_the_file",
    ),
    Mutant(
        "only the first row's receipt is shown",
        KIT,
        """        for row in rows:
            library""",
        """        for row in rows[:1]:
            library""",
        TESTS + "test_a_table_shows_rows_and_receipt",
    ),
)
