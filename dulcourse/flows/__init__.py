"""Flows: log p(x) = log p_z(f(x)) + log|det ∂f/∂x|. One idea per file.

Submodules are imported when they are asked for, so that one withheld for a homework breaks nothing else.
"""

import importlib

__all__ = [
    "affine",
    "base",
    "conditioners",
    "coupling",
    "dequantisation",
    "elementwise",
    "masked_autoregressive",
    "mixture_cdf",
    "monotone",
    "nice",
    "realnvp",
    "reshape",
]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
