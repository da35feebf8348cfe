"""A homework with a model of each family that is asked in two phases."""

from pathlib import Path

import numpy as np

from autograder.rubric import Model, Probe, Problem, Rubric, Threshold, Tier

FOLDER = Path(__file__).parent


def draw(generator: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": generator.normal(size=3)}


rubric = Rubric(
    name="pair",
    title="Two families",
    folder=FOLDER,
    problems=(
        Problem(
            name="double",
            title="Doubling",
            items=(Probe(function="double", draw=draw, reference=lambda x: 2 * x, points=1),),
        ),
        Problem(
            name="models",
            title="Models",
            items=(
                Model(
                    name="line",
                    family="flow",
                    data="toy1d",
                    shape=(1, 1, 1),
                    levels=100,
                    reference="line",
                    points=4,
                ),
                Model(
                    name="blind",
                    family="latent",
                    data="glyphs",
                    options={"size": 8, "levels": 4},
                    shape=(1, 8, 8),
                    levels=4,
                    latents=1,
                    reference="blind",
                    points=4,
                ),
            ),
        ),
    ),
    tiers={
        "smoke": Tier(
            seconds=20,
            thresholds={
                "line": Threshold(full=0.05, none=0.3, images=64),
                "blind": Threshold(full=0.05, none=0.2, images=64),
            },
        )
    },
)
