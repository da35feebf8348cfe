"""Latent-variable models: p(x) = ∫ p(z) p(x | z) dz. One idea per file.

Submodules are imported when they are asked for, so that one withheld for a homework breaks nothing else.
"""

import importlib

__all__ = [
    "base",
    "bounds",
    "distributions",
    "estimators",
    "gradients",
    "inference",
    "linear_gaussian",
    "mixture",
    "vae",
]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
