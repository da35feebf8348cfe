"""Cached sampling against the naive loop, in one run and as ratios: `python -m benchmarks.sampling`.

The naive loop passes the whole image through the network once a symbol. It is timed on `PASSES` of its D
passes and scaled (each costs the same, whatever the symbols are); the cached sampler is timed whole. Both
draw from the same noise, and their samples are compared where all D passes of the naive loop are
affordable. Times are CPU-seconds of one thread, the best of `REPEATS`, since another program on the machine
only ever adds to them. Results go to benchmarks/results: sampling.json with its receipt, sampling.md to
read.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from benchmarks.digits import RESULTS, receipt
from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.autoregressive.gated_pixelcnn import GatedPixelCNN
from dulcourse.autoregressive.made import MADE
from dulcourse.autoregressive.pixelcnn import PixelCNN
from dulcourse.modes import evaluating

PASSES, REPEATS = 4, 3
SMALL, LARGE = (1, 8, 8), (1, 28, 28)
SETTINGS = [(SMALL, 1), (SMALL, 64), (SMALL, 256), (LARGE, 64)]
TARGETS = {(SMALL, 64): 20, (LARGE, 64): 100}  # how many times faster; at n = 1 a step is all overhead
LEVELS, COMPARED = 17, 64 * 64  # symbols drawn by the naive loop, at most, where samples are compared

MODELS: dict[str, Callable[[tuple[int, int, int], torch.Generator], AutoregressiveModel]] = {
    "PixelCNN": lambda shape, g: PixelCNN(shape, LEVELS, 128, 8, inputs=1, cosines=8, generator=g),
    "Gated PixelCNN": lambda shape, g: GatedPixelCNN(shape, LEVELS, 64, 8, inputs=1, cosines=8, generator=g),
    "MADE": lambda shape, g: MADE(shape, LEVELS, generator=g),
}


def measure(name: str, shape: tuple[int, int, int], n: int) -> dict:
    """Times of both samplers in CPU-seconds, and how many symbols they draw differently."""
    generator = torch.Generator().manual_seed(0)
    model = MODELS[name](shape, generator)
    noise, x = model.noise(n, generator), torch.randint(LEVELS, (n, *shape), generator=generator)
    with torch.no_grad(), evaluating(model):
        one_pass = _seconds(lambda: model.logits(x), PASSES)
        cached = _seconds(lambda: model.from_noise(noise), 1)
        naive = one_pass * model.dims
        result = {"model": name, "shape": list(shape), "n": n, "naive": naive, "cached": cached}
        if n * model.dims <= COMPARED:
            pair = model.from_noise(noise), AutoregressiveModel.from_noise(model, noise)
            result["differing"] = int((pair[0] != pair[1]).sum())
    return result | {"ratio": naive / cached, "passes": cached / one_pass}


def _seconds(work: Callable[[], object], times: int) -> float:
    """CPU-seconds of one call: the best of `REPEATS` means over `times` calls, after a call to warm up."""
    work()
    measured = []
    for _ in range(REPEATS):
        start = time.process_time()
        for _ in range(times):
            work()
        measured.append((time.process_time() - start) / times)
    return min(measured)


def table(results: list[dict]) -> str:
    """The results as Markdown."""
    lines = [
        "| model | image | n | naive, s | cached, s | times faster | cached, in passes | differing symbols |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(result) for result in results), ""])


def target(result: dict) -> int | None:
    """How many times faster it has to be: of convolutions, whose passes are not all overhead."""
    return None if result["model"] == "MADE" else TARGETS.get((tuple(result["shape"]), result["n"]))


def _line(result: dict) -> str:
    _, H, W = result["shape"]
    goal = "" if target(result) is None else f" (target ≥ {target(result)})"
    differing = f"{result['differing']} of {result['n'] * H * W}" if "differing" in result else "–"
    return (
        f"| {result['model']} | {H}×{W} | {result['n']} | {result['naive']:.3f} | {result['cached']:.3f} "
        f"| {result['ratio']:.1f}{goal} | {result['passes']:.1f} | {differing} |"
    )


def main() -> None:
    """Measure all models in all settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python -m benchmarks.sampling --out results"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of sampling.json and sampling.md")
    folder = parser.parse_args().out
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for name in MODELS:
        for shape, n in SETTINGS:
            results.append(measure(name, shape, n))
            print(_line(results[-1]), flush=True)
    about = {"receipt": receipt([0], 0.0), "results": results}
    (folder / "sampling.json").write_text(json.dumps(about, indent=1) + "\n")
    (folder / "sampling.md").write_text(table(results))


if __name__ == "__main__":
    main()
