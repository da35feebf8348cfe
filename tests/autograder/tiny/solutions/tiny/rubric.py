"""A homework as small as can be, with one line of each kind in one of two problems."""

from pathlib import Path

import numpy as np

from autograder.rubric import (
    Model,
    Probe,
    Problem,
    Rubric,
    Sampler,
    Threshold,
    Tier,
    Written,
    calibrated_full,
)

FOLDER = Path(__file__).parent


def draw_double(generator: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": generator.normal(size=3)}


def double(x: np.ndarray) -> np.ndarray:
    return 2 * x


rubric = Rubric(
    name="tiny",
    title="Tiny homework",
    folder=FOLDER,
    problems=(
        Problem(
            name="double",
            title="Doubling",
            withheld=("dulcourse.autoregressive.mixture",),
            items=(
                Probe(function="double", draw=draw_double, reference=double, points=2, hint="Times two."),
                Probe(function="same", draw=draw_double, reference=lambda x: x, points=1),
            ),
        ),
        Problem(
            name="table",
            title="A table",
            withheld=("dulcourse.autoregressive.histogram",),
            items=(
                Model(
                    name="table",
                    data="glyphs",
                    options={"size": 8, "levels": 4},
                    shape=(1, 8, 8),
                    levels=4,
                    reference="table",
                    points=4,
                ),
                Sampler(model="table", n=32, points=2),
                Written(cell="why", points=3),
            ),
        ),
    ),
    tiers={
        "smoke": Tier(
            seconds=20,
            thresholds={
                "table": Threshold(
                    full=calibrated_full(FOLDER, "table", "smoke", otherwise=0.05), none=0.3, images=64
                )
            },
        )
    },
)
