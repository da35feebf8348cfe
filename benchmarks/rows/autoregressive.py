"""Autoregressive models on the digits."""

from benchmarks.rows.row import LEVELS, SHAPE, Row, by_counting, by_gradient
from dulcourse.autoregressive.made import MADE

__all__ = ["ROWS"]

MADE_OPTIONS = {"lr": 2e-3, "evaluate_every": 50, "patience": 20}

ROWS = {
    "shared histogram": Row(by_counting(shared=True), peer="shared histogram", peer_bits=2.971),
    "histogram per pixel": Row(by_counting(shared=False), peer="histogram per pixel", peer_bits=2.434),
    "MADE": Row(
        by_gradient(lambda g: MADE(SHAPE, LEVELS, dropout=0.5, generator=g), **MADE_OPTIONS),
        peer="karpathy MADE",
        peer_bits=2.088,
        target=2.05,
    ),
    "MADE, 8 cosines": Row(
        by_gradient(lambda g: MADE(SHAPE, LEVELS, cosines=8, dropout=0.5, generator=g), **MADE_OPTIONS),
        peer="karpathy MADE",
        peer_bits=2.088,
        target=2.05,
    ),
}
