"""Try every mutant, or those of the tables that are named, and print which test noticed which.

    python -m tests.mutants                # all tables
    python -m tests.mutants flows --jobs 1 # one of them

Exit status 1 if a mutant survives or a test fails without any.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.mutants.harness import Mutant, copied, failing, patched, tables, warm_up

Trial = tuple[str, Mutant | None, tuple[str, ...]]  # the table, its mutant or none, the tests that are run


def trials(names: list[str]) -> list[Trial]:
    """For each table first its tests without any bug, which must pass, then each mutant."""
    found = tables()
    if missing := set(names) - set(found):
        sys.exit(f"no table of mutants is called {', '.join(sorted(missing))}: there are {', '.join(found)}.")
    listed: list[Trial] = []
    for name in names or found:
        every = {node: None for mutant in found[name] for node in mutant.nodes}
        listed += [(name, None, tuple(every)), *((name, mutant, mutant.nodes) for mutant in found[name])]
    return listed


def tried(trial: Trial) -> tuple[Trial, str, float]:
    """The test that noticed a mutant, or "" if none did; and the seconds it took."""
    started = time.perf_counter()
    _, mutant, nodes = trial
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        if mutant is None:
            noticed = failing(copy, nodes)
        else:
            with patched(copy, mutant):
                noticed = failing(copy, nodes, mutant.only)
    return trial, "; ".join(noticed), time.perf_counter() - started


def row(trial: Trial, noticed: str, seconds: float) -> tuple[bool, str]:
    """Whether it is as it should be, and its line of the table."""
    table, mutant, nodes = trial
    if mutant is None:
        words = f"NOTICED BY {noticed}" if noticed else "all tests pass"
        return not noticed, f"{table} | {len(nodes)} tests and files | no bug | {words} | {seconds:.0f} s"
    words = noticed or "SURVIVED"
    return bool(noticed), f"{table} | {mutant.file} | {mutant.what} | {words} | {seconds:.0f} s"


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Put bugs into copies of the course; a test must notice each."
    )
    parser.add_argument("tables", nargs="*", help="tables to run (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants tried at a time")
    options = parser.parse_args()
    listed = trials(options.tables)
    warm_up()
    good = []
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        for result in pool.map(tried, listed):
            right, line = row(*result)
            good.append(right)
            print(line, flush=True)
    print(f"{sum(good)} of {len(good)} are as they should be.")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
