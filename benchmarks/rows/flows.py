"""Flows on the digits: an upper bound on bits/dim, by uniform dequantisation (the mean of 8 fixed draws)."""

from benchmarks.rows.row import LEVELS, SHAPE, Row, by_gradient
from dulcourse.flows.dequantisation import mean_negative_elbo, negative_elbo
from dulcourse.flows.elementwise import to_reals
from dulcourse.flows.masked_autoregressive import MAF
from dulcourse.flows.realnvp import RealNVP
from dulcourse.training import cosine

__all__ = ["ROWS"]

OPTIONS = {"loss": negative_elbo, "schedule": cosine, "evaluate_every": 50}

ROWS = {
    "MAF": Row(
        by_gradient(
            lambda g: MAF(
                SHAPE,
                LEVELS,
                layers=5,
                hidden=(512,),
                dropout=0.5,
                before=to_reals(LEVELS, margin=0.003),
                generator=g,
            ),
            steps=3000,
            lr=2e-3,
            weight_decay=0.3,
            **OPTIONS,
        ),
        peer="MAF (zuko)",
        peer_bits=2.259,
        target=2.10,
        loss=mean_negative_elbo(8),
    ),
    "RealNVP": Row(
        by_gradient(
            lambda g: RealNVP(SHAPE, LEVELS, scales=1, width=24, blocks=1, generator=g),
            steps=1500,
            lr=4e-3,
            batch_size=32,
            **OPTIONS,
        ),
        peer="RealNVP (nflows)",
        peer_bits=2.560,
        target=2.10,
        loss=mean_negative_elbo(8),
    ),
}
