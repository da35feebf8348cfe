"""The library stands alone: imported lazily, without the grader, without what a homework withholds."""

import ast
import doctest
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "dulcourse").rglob("*.py"))

# What students may not have: the extras of pyproject.toml, by the names that are imported.
GRADER = [
    *(
        "papermill",
        "nbgrader",
        "nbformat",
        "nbconvert",
        "nbclient",
        "jupytext",
        "jupyter_client",
        "jupyter_core",
    ),
    *("ipykernel", "IPython", "pydantic", "typer", "rich", "jinja2", "psutil", "playwright"),
    *("pytest", "hypothesis", "beartype", "autograder", "solutions", "book", "tests"),
]

# Looked for, and done without where they are missing.
OPTIONAL = {"handin.py": {"IPython"}}

PRELUDE = f"""
import importlib, pkgutil, sys
sys.path.insert(0, {str(ROOT)!r})

class Blocked:
    def __init__(self, names):
        self.names = names
    def find_spec(self, name, path=None, target=None):
        if name in self.names or name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"{{name}} is blocked here", name=name)

def everything():
    import dulcourse
    yield "dulcourse"
    for module in pkgutil.walk_packages(dulcourse.__path__, "dulcourse."):
        yield module.name
"""


def _run(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PRELUDE + program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def test_importing_the_library_imports_nothing_else():
    loaded = _run("import dulcourse\nprint(*(m for m in sys.modules if m.split('.')[0] in "
                  "('torch', 'numpy', 'matplotlib', 'sklearn', 'dulcourse')))")  # fmt: skip
    assert loaded == ["dulcourse"]


def test_every_module_works_without_the_grader():
    """And none of them pulls in pyplot, whose figures stay open, or scikit-learn, which is slow."""
    loaded = _run(f"""
sys.meta_path.insert(0, Blocked({GRADER}))
for name in everything():
    importlib.import_module(name)
print(*sys.modules)
""")
    assert {f"dulcourse.{name}" for name in ("data", "plotting", "training", "handin", "referee")} <= set(
        loaded
    )
    assert not {"matplotlib.pyplot", "sklearn"} & set(loaded)
    assert not set(GRADER) & set(loaded)


def test_the_rest_works_without_any_model():
    """Any model may be what a homework asks for, and is then withheld; what it builds on is always there.

    (A model that builds on a withheld one, as a flow does on MADE, is not there either.)
    """
    kept = {"__init__", "base", "orders", "distributions"}
    families = ("autoregressive", "flows", "latent")
    models = [f"dulcourse.{p.parent.name}.{p.stem}" for p in FILES if p.parent.name in families]
    withheld = [name for name in models if name.rsplit(".", 1)[1] not in kept]
    loaded = _run(f"""
withheld = {withheld}
sys.meta_path.insert(0, Blocked(withheld))
for name in everything():
    if name not in withheld:
        importlib.import_module(name)
print(*sys.modules)
""")
    assert len(withheld) >= 15
    assert not set(withheld) & set(loaded)
    assert "dulcourse.autoregressive.base" in loaded


def test_an_unknown_name_says_what_there_is():
    import dulcourse

    with pytest.raises(AttributeError, match=r"no attribute 'dada'.*data"):
        dulcourse.dada  # noqa: B018
    assert set(dulcourse.__all__) <= set(dir(dulcourse))


def test_every_public_name_of_the_library_is_there():
    import dulcourse

    for name in dulcourse.__all__:
        module = getattr(dulcourse, name)
        for public in getattr(module, "__all__", ()):
            assert hasattr(module, public), f"{module.__name__} promises {public}"


def _imports(path: Path) -> set[str]:
    """The top-level packages a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def test_the_library_imports_only_what_it_declares():
    """Dependencies run one way: never the grader, the solutions or the book, not even inside a function."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=\[; ]", line)[0].replace("-", "_") for line in project["dependencies"]}
    declared = {{"scikit_learn": "sklearn", "pillow": "PIL"}.get(name, name) for name in declared}
    for path in FILES:
        foreign = _imports(path) - declared - set(sys.stdlib_module_names) - {"dulcourse"}
        assert foreign <= OPTIONAL.get(path.name, set()), f"{path.name} imports {sorted(foreign)}"


def test_no_module_seeds_a_global_generator():
    seeding = re.compile(r"\b(torch|np\.random|numpy\.random|random)\.(manual_seed|seed)\(")
    for path in FILES:
        assert not seeding.search(path.read_text()), path.name


def test_no_file_of_the_library_names_a_place_on_some_machine():
    for path in FILES:
        assert not re.search(r"/(home|root|Users|work)/", path.read_text()), path.name


def test_examples_in_docstrings_are_true():
    import dulcourse

    found = [pkgutil.resolve_name(name) for name in _modules(dulcourse)]
    results = [doctest.testmod(module) for module in found]
    assert sum(result.attempted for result in results) > 0
    assert [result.failed for result in results] == [0] * len(found)


def _modules(package) -> list[str]:
    return [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
