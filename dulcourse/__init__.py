"""The reference library of the course on deep unsupervised learning.

Nothing is imported until it is asked for: `import dulcourse` is instant, and a module that is withheld while
a homework is graded breaks nothing but the line that imports it.
"""

import importlib

__version__ = "0.1.0"
__all__ = [
    "autoregressive",
    "data",
    "errors",
    "flows",
    "handin",
    "latent",
    "likelihood",
    "plotting",
    "referee",
    "training",
]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
