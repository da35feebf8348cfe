"""The models of homework 3 as a good student trains them: what a submission is measured against.

`build_<name>(tier)` builds one untrained, `<name>(seed, tier)` builds and trains it. `autograder calibrate`
runs them over several seeds, keeps one set of weights a tier, and takes the threshold for full points from
their spread.
"""

import torch

from dulcourse import data, training
from dulcourse.latent.bounds import negative_beta_elbo, negative_iwae
from dulcourse.latent.vae import VAE

__all__ = ["build_iwae", "build_vae", "iwae", "vae"]

# The sizes that the notebook recommends (a test holds the two against each other).
STEPS = {
    "smoke": {"warm_up": 100, "vae": 400, "iwae": 200},
    "cpu": {"warm_up": 500, "vae": 2500, "iwae": 2000},
    "gpu": {"warm_up": 500, "vae": 2500, "iwae": 2000},
}
IMAGES = {
    "smoke": {"train": 2048, "validation": 1024},
    "cpu": {"train": 8192, "validation": 1024},
    "gpu": {"train": 8192, "validation": 1024},
}
LEARNING_RATE = {"smoke": 1e-2, "cpu": 4e-3, "gpu": 4e-3}
HIDDEN = {"smoke": 128, "cpu": 128, "gpu": 128}
LATENTS, SAMPLES, BATCH, CHEAP = 8, 5, 128, 0.2


def build_vae(tier: str, generator: torch.Generator | None = None) -> VAE:
    """Eight latents; the same in every tier."""
    return VAE((1, 8, 8), levels=4, latents=LATENTS, hidden=HIDDEN[tier], generator=generator)


def vae(seed: int, tier: str) -> VAE:
    """Warmed up with cheap latents, then trained by the ELBO."""
    return _trained(seed, tier, STEPS[tier]["vae"], negative_beta_elbo(1.0))


def build_iwae(tier: str) -> VAE:
    """The same network as the VAE's."""
    return build_vae(tier)


def iwae(seed: int, tier: str) -> VAE:
    """Warmed up likewise, then trained by the importance-weighted bound."""
    return _trained(seed, tier, STEPS[tier]["iwae"], negative_iwae(SAMPLES))


def _trained(seed: int, tier: str, steps: int, loss: training.Loss) -> VAE:
    generator = torch.Generator().manual_seed(seed)
    model = build_vae(tier, generator)
    glyphs = [data.load("glyphs", split, size=8, levels=4, n=n) for split, n in IMAGES[tier].items()]
    settings = {"generator": generator, "batch_size": BATCH, "lr": LEARNING_RATE[tier], "progress": False}
    training.fit(model, *glyphs, steps=STEPS[tier]["warm_up"], loss=negative_beta_elbo(CHEAP), **settings)
    training.fit(model, *glyphs, steps=steps, loss=loss, schedule=training.cosine, **settings)
    return model
