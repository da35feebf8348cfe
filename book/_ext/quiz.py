"""Questions that answer at once: the directive `{quiz}`.

    :::{quiz}
    What does doubling the levels cost a uniform model?

    - (x) One bit per dimension.

      $\\log_2 2L = 1 + \\log_2 L$.
    - ( ) Twice as many bits.

      Only if it paid one before.
    :::

Each choice is a fold (`<details>`) that says whether it is right, and why, when it is opened: it works with a
keyboard, without scripts and without a network, and opens by itself where the page is printed.
"""

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

__all__ = ["Quiz", "setup"]

RIGHT, WRONG = "(x) ", "( ) "
VERDICT = {True: "Right.", False: "No."}


class Question(nodes.General, nodes.Element):
    """A question, then choices."""


class Choice(nodes.General, nodes.Element):
    """A `ChoiceText`, then a `ChoiceReason`; `right` says which kind it is."""


class ChoiceText(nodes.General, nodes.TextElement):
    """What can be chosen."""


class ChoiceReason(nodes.General, nodes.Element):
    """Why it is right or wrong."""


class Quiz(Directive):
    """A question and its choices, each with a reason: at least one is right, and one wrong."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        parsed = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, parsed)
        *question, choices = parsed.children or [None]
        if not question or not isinstance(choices, nodes.bullet_list):
            raise self.error("a quiz is a question and then a list of choices, such as '- (x) Yes.'")
        found = [self._choice(item) for item in choices.children]
        if len({one["right"] for one in found}) != 2:
            raise self.error("a quiz needs at least one right choice, '(x) …', and one wrong one, '( ) …'")
        return [Question("", *question, *found)]

    def _choice(self, item: nodes.list_item) -> Choice:
        first, *reason = item.children
        mark = first.astext()[: len(RIGHT)]
        if mark not in (RIGHT, WRONG):
            raise self.error(f"a choice starts with '(x) ' or '( ) ': {first.astext()!r} does not")
        if not reason:
            raise self.error(f"a choice says why it is right or wrong: {first.astext()!r} does not")
        text = ChoiceText("", "", *first.children)
        text[0] = nodes.Text(text[0].astext()[len(mark) :])
        return Choice("", text, ChoiceReason("", *reason), right=mark == RIGHT)


def _open_quiz(writer, node: Question) -> None:
    writer.body.append('<div class="quiz" role="group" aria-label="Quick check">')
    writer.body.append('<p class="quiz-title">Quick check</p>')


def _close_quiz(writer, node: Question) -> None:
    writer.body.append("</div>\n")


def _open_choice(writer, node: Choice) -> None:
    kind = "right" if node["right"] else "wrong"
    writer.body.append(f'<details class="quiz-choice quiz-{kind}">')


def _close_choice(writer, node: Choice) -> None:
    writer.body.append("</details>\n")


def _open_text(writer, node: ChoiceText) -> None:
    writer.body.append("<summary><span>")


def _close_text(writer, node: ChoiceText) -> None:
    writer.body.append("</span></summary>\n")


def _open_reason(writer, node: ChoiceReason) -> None:
    verdict = VERDICT[node.parent["right"]]
    writer.body.append(f'<div class="quiz-reason"><p class="quiz-verdict">{verdict}</p>')


def _close_reason(writer, node: ChoiceReason) -> None:
    writer.body.append("</div>\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this when it loads the extension."""
    app.add_directive("quiz", Quiz)
    app.add_node(Question, html=(_open_quiz, _close_quiz))
    app.add_node(Choice, html=(_open_choice, _close_choice))
    app.add_node(ChoiceText, html=(_open_text, _close_text))
    app.add_node(ChoiceReason, html=(_open_reason, _close_reason))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
