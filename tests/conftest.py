"""One thread, checked shapes and reproducible examples, before anything of the library is imported."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("dulcourse", "beartype.beartype")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

# The same examples everywhere, and no deadline: a slow machine is not a wrong program.
hypothesis.settings.register_profile("dulcourse", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("dulcourse")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: where workers share the files, short ones even out the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup() -> None:
    """A grader lets torch take all cores it finds. The tests after it have one thread, as those before it."""
    torch.set_num_threads(1)


@pytest.fixture
def float64():
    """New tensors and modules are float64 inside the test, so that tolerances can be tight."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def generator() -> torch.Generator:
    """A torch generator in a known state."""
    return torch.Generator().manual_seed(0)
