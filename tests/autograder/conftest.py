"""Sessions behind the wall, and the certainty that nothing of them is left."""

import os
import tempfile
from collections.abc import Iterator

import pytest

from autograder.forkserver import ForkServer
from autograder.library import StagedLibrary
from autograder.limits import Limits
from autograder.owner import owned_name
from autograder.sandbox import available
from tests.autograder.notebooks import groups, hide_torch, processes, small_library, staged


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a sandbox its tests are skipped, with the reason; where tests are of record, they fail."""
    walled = [item for item in items if item.get_closest_marker("wall")]
    reason = available() if walled and "CI" not in os.environ else None
    if reason:
        for item in walled:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StagedLibrary]:
    """The small library, staged, without its secret."""
    source = small_library(tmp_path_factory.mktemp("source"))
    with staged(
        ["dulcourse.secret_answer"], problems={"dulcourse.secret_answer": "p2"}, source=source, fonts=False
    ) as filled:
        yield filled


@pytest.fixture(scope="session")
def server(library: StagedLibrary) -> Iterator[ForkServer]:
    """A process from which sessions of the small library are forked."""
    with ForkServer(library.folder, Limits()) as warm:
        yield warm.load()


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StagedLibrary]:
    """The same, without torch and matplotlib: for servers that a test ill-treats, which start sooner."""
    with staged(source=small_library(tmp_path_factory.mktemp("source")), fonts=False) as filled:
        hide_torch(filled.folder)
        yield filled


@pytest.fixture
def nothing_left(library: StagedLibrary) -> Iterator[None]:
    """After the test: no process of its sandboxes, no control group, no temporary folder."""
    before = _temporary()
    yield
    assert processes() == []
    assert groups(owned_name()) == []
    assert _temporary() <= before


def _temporary() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith(owned_name())}
