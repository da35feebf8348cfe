"""The sandboxes of a batch, which begin to be made while the grader itself is still being imported.

    with Sandboxes(slots=2) as sandboxes:
        from autograder.grading import grade_class  # which takes a second
        grade_class(…, slots=2, sandboxes=sandboxes)

This file imports nothing that takes long.
"""

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from autograder.bubblewrap import available
from autograder.forkserver import ForkServer, server_for
from autograder.library import Stage
from autograder.limits import Limits
from autograder.scheduler import cores, threads_per_slot
from dulcourse.errors import InfrastructureError

__all__ = ["Sandboxes"]


class Sandboxes:
    """Real ones: bubblewrap, a library without what is withheld, the tier's limits. None, no grading.

    What no submission and no rubric changes is begun when the block is entered: the list of fonts and, where
    sessions are forked, the server of warm processes. Trouble with that is told when sandboxes are asked for.
    """

    def __init__(self, *, slots: int | None = None, gpu: bool = False):
        self._settings = {"threads": threads_per_slot(slots or cores()), "device": "cuda" if gpu else "cpu"}
        self._begun = contextlib.ExitStack()
        self._stage: Stage | None = None
        self._server: ForkServer | None = None

    def __enter__(self) -> "Sandboxes":
        with contextlib.suppress(InfrastructureError, OSError):
            self._stage = self._begun.enter_context(Stage())
            self._server = self._begun.enter_context(
                server_for(self._stage.folder, Limits(), **self._settings)
            )
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._begun.close()

    @contextlib.contextmanager
    def __call__(self, desk: Any) -> Iterator[Any]:
        """What opens a session in a fresh sandbox, by slot, for the submissions of a batch."""
        from autograder.session import Session

        trouble = available()
        if trouble is not None or self._stage is None:
            raise InfrastructureError(
                trouble or "no temporary folder can be made; set TMPDIR to one that can."
            )
        problems = {module: problem.name for problem in desk.rubric.problems for module in problem.withheld}
        library = self._stage.fill(desk.rubric.withheld, problems=problems)
        limits = Limits(memory_gib=desk.tier.memory_gib)
        if self._server:
            self._server.load(_data(desk.rubric))

        def open_session(slot: int) -> Session:
            # Should the server die, it costs one submission its turn, and the others some time.
            warm = self._server if self._server and self._server.alive else None
            return Session(library=library, limits=limits, slot=slot, server=warm, **self._settings)

        yield open_session


def _data(rubric: Any) -> list[tuple[str, dict[str, Any]]]:
    """The data sets of its models, once each."""
    found: list[tuple[str, dict[str, Any]]] = []
    for _, item in rubric.items:
        if item.kind == "model" and (item.data, item.options) not in found:
            found.append((item.data, item.options))
    return found
