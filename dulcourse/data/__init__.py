"""Every data set behind one door.

>>> load("glyphs", "train", n=3).x.shape
torch.Size([3, 1, 8, 8])

`fresh` draws from the unlimited ones: event i is a pure function of a key, i and the options. Whoever holds
the key can ask for any of them alone; whoever does not has never seen them.
"""

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType

from dulcourse.data.dataset import SPLITS, Dataset, indices_of, one_of, positive
from dulcourse.errors import UsageError, unknown
from dulcourse.randomness import derive

__all__ = ["SPLITS", "Dataset", "fresh", "keep", "load", "names", "unlimited"]

# A data set is one file, imported when it is asked for. It has `load(split, *, seed, **options)` or, where
# there is no end of it, `draw(indices, *, key, split, **options)` and `SIZES`: the default `n` of each split.
_GENERATED = ("glyphs", "ising", "shapes", "toy1d", "toy2d")
_SHIPPED = ("digits", "photos")
_DOWNLOADED = ("cifar10", "fashion", "mnist")
_MODULES = {name: f"{__name__}.{name}" for name in (*_GENERATED, *_SHIPPED, *_DOWNLOADED)}
_kept: dict[tuple, Dataset] = {}


def names() -> list[str]:
    """The data sets that `load` knows."""
    return sorted(_MODULES)


def unlimited() -> list[str]:
    """The data sets that `fresh` knows: there is no end of them, so nobody has seen what a new key draws."""
    return [name for name in names() if hasattr(_module(name), "draw")]


def load(name: str, split: str, *, seed: int = 0, **options) -> Dataset:
    """One split ("train", "validation" or "test") of a data set. The same seed gives the same data.

    Options, the default first:

    - glyphs `size` (8, 14, 28), `levels` (4, 2, 256), `n`
    - shapes `size` (16, 8, 32), `levels` (2, 4), `channels` (1, 3), `n`
    - ising `size` (8, 4, 6), `coupling` (the critical one, or any number), `n`
    - toy1d `n`
    - toy2d `kind` ("moons", …), `levels` (None for points of the plane, 16, 64, 256), `n`
    - digits `levels` (17, 4); mnist, fashion and cifar10 `levels` (256, …)
    - photos `size` (8, 16, 32), `levels` (256, 32, 4), `n`
    """
    module = _module(name)
    one_of("split", split, SPLITS)
    if not hasattr(module, "draw"):
        _known_options(name, options, module.load, fixed=("seed",))
        return module.load(split, seed=seed, **options)
    _known_options(name, options, module.draw, fixed=("key", "split"), more=("n",))
    n = positive("n", options.pop("n", module.SIZES[split]))
    kept = _kept.get(_key(name, split, seed, options))
    if kept is not None and n <= len(kept):
        y = None if kept.y is None else kept.y[:n].clone()
        return replace(kept, x=kept.x[:n].clone(), y=y)
    return module.draw(range(n), key=derive(b"dulcourse.data", name, split, seed), split=split, **options)


def keep(name: str, split: str, *, seed: int = 0, **options) -> None:
    """Draw an unlimited set now: from then on `load` copies it, in this process and in those it forks.

    Event i is the same however many are drawn, so any `n` up to that many is a copy too.
    """
    found = load(name, split, seed=seed, **options)
    if name in unlimited():
        _kept[_key(name, split, seed, {o: value for o, value in options.items() if o != "n"})] = found


def _key(name: str, split: str, seed: int, options: dict) -> tuple:
    return name, split, seed, *sorted(options.items())


def fresh(name: str, key: bytes, indices: Sequence[int], **options) -> Dataset:
    """Events `indices` of an unlimited data set under `key`, in the order asked for.

    >>> one, many = fresh("glyphs", b"my key", [7]), fresh("glyphs", b"my key", range(10))
    >>> bool((one.x[0] == many.x[7]).all())
    True
    """
    module = _module(name)
    if not hasattr(module, "draw"):
        raise UsageError(f"{name!r} cannot be drawn afresh: expected one of {', '.join(unlimited())}.")
    _known_options(name, options, module.draw, fixed=("key", "split"))
    return module.draw(indices_of(indices), key=key, split="fresh", **options)


def _module(name: str) -> ModuleType:
    if name not in _MODULES:
        raise unknown("data set", name, names())
    return importlib.import_module(_MODULES[name])


def _known_options(
    name: str, options: dict, function: Callable, *, fixed: tuple[str, ...], more: tuple[str, ...] = ()
) -> None:
    """An error for an option that is neither in `more` nor a keyword of `function` outside `fixed`."""
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in fixed] + [*more]
    for option in options:
        if option not in known and known:
            raise unknown(f"option of {name}", option, known)
        if option not in known:
            raise UsageError(f"{name} takes no options, so {option!r} means nothing: leave it out.")
