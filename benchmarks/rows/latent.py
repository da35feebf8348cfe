"""Latent-variable models on the digits."""

from benchmarks.rows.row import LEVELS, SHAPE, Bound, Row, by_gradient
from dulcourse.latent.base import negative_elbo
from dulcourse.latent.bounds import negative_iwae
from dulcourse.latent.vae import ConvVAE
from dulcourse.training import cosine

__all__ = ["ROWS"]

PEER = "VAE (pytorch-generative)"

ROWS = {
    # Trained by the ELBO, which is the row's number; the importance-weighted bound is of the same weights.
    "VAE": Row(
        by_gradient(
            lambda g: ConvVAE(SHAPE, LEVELS, 16, 16, cosines=8, dropout=0.1, generator=g),
            steps=3500,
            loss=negative_elbo,
            lr=4e-3,
            schedule=cosine,
            weight_decay=0.1,
        ),
        peer=PEER,
        peer_bits=2.035,
        target=2.00,
        loss=negative_elbo,
        also={"VAE, IWAE-100": Bound(negative_iwae(100), peer=PEER, peer_bits=1.981, target=1.95)},
    ),
}
