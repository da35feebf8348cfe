"""Test bits/dim on the digits (8×8, 17 levels) under one fixed protocol: `python -m benchmarks.digits`.

Each model gets at most 60 CPU-seconds of optimiser steps on one thread (evaluation excluded), Adam, and the
weights that were best on validation; the test set is looked at once. Five splits, by the permutations
`default_rng(0…4)`. Hyperparameters were chosen on the validation sets. An autoregressive model is also
charged by the referee, which shows it no symbol that it predicts: a figure that a leak made too low would not
come out again. Results go to benchmarks/results: digits.json with receipts, digits.md to read.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

import dulcourse
from benchmarks.rows import autoregressive, flows, latent
from benchmarks.rows.blind import charged
from benchmarks.rows.row import Bound, Row
from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.data import load
from dulcourse.training import evaluate

RESULTS = Path(__file__).with_name("results")


def library_hash() -> str:
    """BLAKE2b over the names and contents of the library's sources."""
    root, digest = Path(dulcourse.__file__).parent, blake2b(digest_size=8)
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


LIBRARY = library_hash()  # of the sources as they are when they are imported
ROWS = autoregressive.ROWS | flows.ROWS | latent.ROWS


def measure(row: Row, seed: int, seconds: float) -> dict:
    """Train on one split, look at its test set once, and time the sampler."""
    train, validation, test = (load("digits", split, seed=seed) for split in ("train", "validation", "test"))
    generator = torch.Generator().manual_seed(seed)
    model, history = row.train(train, validation, generator, seconds)
    result = {"seed": seed, "test": evaluate(model, test, loss=row.loss)}
    result["validation"] = evaluate(model, validation, loss=row.loss)
    if isinstance(model, AutoregressiveModel):
        result["charged"] = charged(model, test, train, seed)
    if row.also:
        result["also"] = {
            name: evaluate(model, test, loss=bound.loss, batch_size=bound.batch_size)
            for name, bound in row.also.items()
        }
    result["sampled_per_second"] = _rate(lambda: model.sample(256, generator=generator), 256)
    if history is not None:
        result |= {"steps": history.step[-1], "best_step": history.step[history.best]}
        result["seconds"] = history.seconds
    return result


def receipt(seeds: list[int], seconds: float) -> dict:
    """What a reader needs to know to believe the numbers, or to measure them again."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "library": LIBRARY,
        "seeds": seeds,
        "seconds": seconds,
    }


def table(results: dict[str, dict]) -> str:
    """The results as Markdown, in the order of ROWS."""
    lines = [
        "| model | test bits/dim | spread over splits | charged blind | peer | difference ± 2 SE | target | "
        "sampled/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ROWS:
        if name in results:
            lines += _lines(name, ROWS[name], results[name]["splits"])
    return "\n".join([*lines, ""])


def _lines(name: str, row: Row, splits: list[dict]) -> Iterator[str]:
    """A row's own line, and one for each other bound of the same models."""
    rate = statistics.median(split["sampled_per_second"] for split in splits)
    blind = [split["charged"] for split in splits if "charged" in split]
    yield _line(name, row, [split["test"] for split in splits], rate, blind)
    for other, bound in row.also.items():
        yield _line(other, bound, [split["also"][other] for split in splits], rate)


def _line(name: str, row: Row | Bound, bits: list[float], rate: float, blind: Sequence[float] = ()) -> str:
    mean, spread = statistics.mean(bits), statistics.stdev(bits) if len(bits) > 1 else math.nan
    error = 2 * spread / math.sqrt(len(bits))
    peer = "–" if row.peer_bits is None else f"{row.peer} {row.peer_bits:.3f}"
    difference = "–" if row.peer_bits is None else f"{mean - row.peer_bits:+.3f} ± {error:.3f}"
    target = "–" if row.target is None else f"≤ {row.target}"
    paid = f"{statistics.mean(blind):.3f}" if blind else "–"
    return f"| {name} | {mean:.3f} | {spread:.3f} | {paid} | {peer} | {difference} | {target} | {rate:,.0f} |"


def _rate(work: Callable[[], object], items: int) -> float:
    work()  # warm up
    start = time.process_time()
    work()
    return items / (time.process_time() - start)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m benchmarks.digits --only MADE --seeds 0 1 --seconds 20",
    )
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), help="rows to measure")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="split seeds")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU-seconds of optimiser steps")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of digits.json and digits.md")
    return parser.parse_args()


def main() -> None:
    """Measure the rows that were asked for; the others keep the results they have."""
    arguments = _arguments()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "digits.json"
    results: dict[str, dict] = {}
    for name in arguments.only:
        splits = []
        for seed in arguments.seeds:
            splits.append(measure(ROWS[name], seed, arguments.seconds))
            print(f"{name}, split {seed}: test {splits[-1]['test']:.4f} bits/dim", flush=True)
        # Read again: rows may be measured side by side.
        results = json.loads(path.read_text()) if path.exists() else {}
        results[name] = {"receipt": receipt(arguments.seeds, arguments.seconds), "splits": splits}
        path.write_text(json.dumps(results, indent=1) + "\n")
        path.with_suffix(".md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
