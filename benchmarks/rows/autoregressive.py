"""Autoregressive models on the digits."""

from benchmarks.rows.row import LEVELS, SHAPE, Row, by_counting, by_gradient
from dulcourse.autoregressive.gated_pixelcnn import GatedPixelCNN
from dulcourse.autoregressive.made import MADE
from dulcourse.autoregressive.pixelcnn import PixelCNN
from dulcourse.training import cosine

__all__ = ["ROWS"]

MADE_OPTIONS = {"lr": 2e-3, "evaluate_every": 50, "patience": 20, "steps": 10_000}  # it stops long before
# With one-hot symbols the same networks memorise: 1.97 on validation, after 200 steps.
SMOOTH = {"inputs": 1, "cosines": 8, "dropout": 0.2}
# Small batches, so more and noisier steps, and weights that shrink: 0.014 better on the validation sets of
# PixelCNN, and 0.025 on two of the Gated PixelCNN, than batches of 64 without decay. Where a machine does two
# thirds of the steps in its seconds, batches of 32 cost PixelCNN 0.014 and batches of 16 cost it 0.002.
PIXELCNN_OPTIONS = {"lr": 3e-3, "schedule": cosine, "evaluate_every": 50, "weight_decay": 0.1}

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
    "PixelCNN": Row(
        by_gradient(
            lambda g: PixelCNN(SHAPE, LEVELS, 64, 5, **SMOOTH, generator=g),
            steps=2500,
            batch_size=16,
            **PIXELCNN_OPTIONS,
        ),
        peer="PixelCNN (pytorch-generative)",
        peer_bits=1.843,
        target=1.84,
    ),
    "Gated PixelCNN": Row(
        by_gradient(
            lambda g: GatedPixelCNN(SHAPE, LEVELS, 32, 4, **SMOOTH, generator=g),
            steps=1100,
            batch_size=32,
            **PIXELCNN_OPTIONS,
        ),
        peer="Gated PixelCNN (pytorch-generative)",
        peer_bits=1.881,
        target=1.845,
    ),
}
