"""Autoregressive models: p(x) = Π_t p(x_order[t] | the symbols before it in the order). One model per file.

Submodules are imported when they are asked for, so that one withheld for a homework breaks nothing else.
"""

import importlib

__all__ = ["base", "causal", "gated_pixelcnn", "histogram", "made", "mixture", "orders", "pixelcnn"]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
