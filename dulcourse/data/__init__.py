"""Every data set behind one door.

>>> load("glyphs", "train", n=3).x.shape
torch.Size([3, 1, 8, 8])

`fresh` draws from the unlimited ones: event i is a pure function of a key, i and the options, so that whoever holds
the key can ask for any of them alone, and whoever does not has never seen them.
"""

import importlib
import inspect
from collections.abc import Callable, Sequence
from types import ModuleType

from dulcourse.data.dataset import SPLITS, Dataset, indices_of, one_of, positive
from dulcourse.errors import UsageError, unknown
from dulcourse.randomness import derive

__all__ = ["SPLITS", "Dataset", "fresh", "load", "names", "unlimited"]

# A data set is one file: `load(split, *, seed, **options)` or, where there is no end of it, `SIZES` (events in each
# split) and `draw(indices, *, key, **options)`. Files are imported when they are asked for.
_MODULES = {name: f"{__name__}.{name}" for name in ("digits", "glyphs", "toy1d", "toy2d")}


def names() -> list[str]:
    """The data sets that `load` knows."""
    return sorted(_MODULES)


def unlimited() -> list[str]:
    """The data sets that `fresh` knows: there is no end of them, so nobody can have seen what a new key draws."""
    return [name for name in names() if hasattr(_module(name), "draw")]


def load(name: str, split: str, *, seed: int = 0, **options) -> Dataset:
    """One split ("train", "validation" or "test") of a data set. The same seed gives the same data, everywhere.

    Options by data set: digits `levels` (17, 4); glyphs `n`, `size` (8, 14, 28), `levels` (2, 4, 256); toy1d `n`;
    toy2d `kind`, `n`.
    """
    module = _module(name)
    one_of("split", split, SPLITS)
    if not hasattr(module, "draw"):
        return _call(name, module.load, options, split, seed=seed)
    size = positive("n", options.pop("n", module.SIZES[split]))
    key = derive(b"dulcourse.data", name, split, seed)
    return _call(name, module.draw, options, range(size), key=key, split=split)


def fresh(name: str, key: bytes, indices: Sequence[int], **options) -> Dataset:
    """Events `indices` of an unlimited data set under `key`, in the order asked for; labels with them.

    >>> one, many = fresh("glyphs", b"my key", [7]), fresh("glyphs", b"my key", range(10))
    >>> bool((one.x[0] == many.x[7]).all())
    True
    """
    module = _module(name)
    if not hasattr(module, "draw"):
        raise UsageError(
            f"{name!r} cannot be drawn afresh: choose one of {', '.join(unlimited())}, which can."
        )
    return _call(name, module.draw, options, indices_of(indices), key=key, split="fresh")


def _module(name: str) -> ModuleType:
    if name not in _MODULES:
        raise unknown("data set", name, names())
    return importlib.import_module(_MODULES[name])


def _call(name: str, function: Callable[..., Dataset], options: dict, *positional, **fixed) -> Dataset:
    known = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    known = [p.name for p in known if p.name not in fixed]
    for option in options:
        if option not in known:
            raise _unknown_option(name, option, known)
    return function(*positional, **fixed, **options)


def _unknown_option(name: str, option: str, known: list[str]) -> UsageError:
    if known:
        return unknown(f"option of {name!r}", option, known)
    return UsageError(f"{name!r} takes no option {option!r}: leave it out.")
