"""Where scikit-learn keeps the data it ships. Importing its own loaders takes longer than many a chapter."""

from importlib.util import find_spec
from pathlib import Path

from dulcourse.errors import InfrastructureError

__all__ = ["shipped"]


def shipped(name: str) -> Path:
    """The file `name`, such as "data/digits.csv.gz", of the package sklearn.datasets, which is not imported.

    Raises: InfrastructureError where scikit-learn or that file is missing.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise InfrastructureError(
            "this data comes with scikit-learn, which is not installed: run pip install scikit-learn."
        )
    path = Path(package.origin).parent / "datasets" / name
    if not path.is_file():
        raise InfrastructureError(
            f"scikit-learn came without datasets/{name}: install it anew with "
            "pip install --force-reinstall scikit-learn."
        )
    return path
