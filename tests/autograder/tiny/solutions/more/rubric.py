"""A homework with a class-conditional model, its samples, and a model of finite data."""

from pathlib import Path

import numpy as np

from autograder.rubric import Model, Probe, Problem, Rubric, Sampler, Threshold, Tier

FOLDER = Path(__file__).parent


def draw(generator: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": generator.normal(size=3)}


rubric = Rubric(
    name="more",
    title="Labels, and few images",
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
                    name="labelled",
                    data="glyphs",
                    options={"size": 8, "levels": 4},
                    shape=(1, 8, 8),
                    levels=4,
                    classes=10,
                    reference="labelled",
                    points=4,
                ),
                Sampler(model="labelled", n=40, points=4),
                Model(name="scarce", data="digits", shape=(1, 8, 8), levels=17, reference="scarce", points=2),
            ),
        ),
    ),
    tiers={
        "smoke": Tier(
            seconds=20,
            thresholds={
                "labelled": Threshold(full=0.05, none=0.3, images=256),
                "scarce": Threshold(full=0.05, none=0.3),
            },
        )
    },
)
