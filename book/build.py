"""Build the book into `_build/html`: run the chapters side by side, then let Jupyter Book lay out the pages.

A chapter is run again when its code changed, and all of them when the library or the lock file did. The pages
are always laid out anew and every warning is an error, so a book that builds is a book that is whole.

    python book/build.py                  # build what changed
    python book/build.py --fresh          # run every chapter again
    python book/build.py --jobs 1 --times # how long each chapter takes, undisturbed
    python book/build.py --only book/lecture2/made  # one page, in _build/one/made; its links are dead
"""

import argparse
import hashlib
import logging
import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import yaml
from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"
SECONDS_PER_CELL = 120


def key() -> str:
    """What the chapters' outputs depend on besides their own code."""
    digest = hashlib.blake2b(platform.python_version().encode(), digest_size=16)
    sources = [*(ROOT / "dulcourse").rglob("*.py"), ROOT / "book/kit.py", *ROOT.glob("requirements*.lock")]
    for path in sorted([*sources, *(ROOT / "benchmarks/results").glob("*.json")]):
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def forget(fresh: bool) -> None:
    """Empty the execution cache if anything behind the chapters changed."""
    stamp, now = BUILD / "execution.key", key()
    if fresh or not stamp.exists() or stamp.read_text() != now:
        shutil.rmtree(CACHE, ignore_errors=True)
    BUILD.mkdir(exist_ok=True)
    stamp.write_text(now)


def chapters() -> Iterator[Path]:
    """The pages of the table of contents that hold code, in the book's order."""

    def files(node) -> Iterator[str]:
        for item in node if isinstance(node, list) else [node]:
            yield from (item[name] for name in ("root", "file") if name in item)
            for name in ("parts", "chapters", "sections"):
                yield from files(item.get(name, []))

    for name in files(yaml.safe_load((ROOT / "_toc.yml").read_text())):
        path = ROOT / f"{name}.md"
        if "{code-cell}" in path.read_text():
            yield path


def run(path: Path) -> tuple[str, float, float]:
    """Run one chapter and keep its outputs: its state, its CPU-seconds and its wall seconds."""
    started, used = time.perf_counter(), cpu()
    cache = get_cache(CACHE)
    record = cache.add_nb_to_project(str(path), read_data={"name": "myst_nb_md", "type": "plugin"})
    executor = load_executor("local-serial", cache, logging.getLogger("book"))
    done = executor.run_and_cache(filter_pks=[record.pk], timeout=SECONDS_PER_CELL)
    state = "ran" if done.succeeded else "failed" if done.all() else "unchanged"
    return state, cpu() - used, time.perf_counter() - started


def cpu() -> float:
    """CPU-seconds of the kernels that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def quiet() -> None:
    """Kernels warn of unencrypted ports at every start; these are local, and gone when the page is built."""
    profile = BUILD / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("c = get_config()\nc.IPKernelApp.log_level = 'ERROR'\n")
    os.environ["IPYTHONDIR"] = str(profile.parent)


def run_all(jobs: int, times: bool) -> None:
    """Run the chapters, `jobs` at a time. A failure is reported in full while the pages are laid out."""
    pages = list(chapters())
    get_cache(CACHE).list_cache_records()  # creates the tables before anyone shares them
    fork = multiprocessing.get_context("fork")  # the imports above take seconds: once is enough
    with ProcessPoolExecutor(jobs, mp_context=fork) as pool:
        for path, (state, seconds, wall) in zip(pages, pool.map(run, pages), strict=True):
            if times or state == "failed":
                print(f"{path.relative_to(ROOT)!s:40} {state:10} {seconds:6.1f} CPU-s {wall:6.1f} s")


def lay_out() -> int:
    """Jupyter Book, with every warning an error; its exit status."""
    shutil.rmtree(BUILD / "html", ignore_errors=True)  # a removed chapter must not linger
    return jupyter_book("-W", "-n", "--keep-going")


def jupyter_book(*options: str) -> int:
    """Lay out all pages anew; the exit status."""
    book = Path(sys.executable).with_name("jupyter-book")
    return subprocess.run([book, "build", ".", "--all", "-q", *options], cwd=ROOT).returncode


def one(page: str) -> int:
    """Run and lay out one page as a book of its own, while it is being written; the exit status.

    What it says of other pages cannot be found there, so warnings are no errors.
    """
    folder = BUILD / "one" / Path(page).name
    folder.mkdir(parents=True, exist_ok=True)
    toc = folder / "_toc.yml"
    toc.write_text(yaml.safe_dump({"format": "jb-book", "root": str(Path(page).with_suffix(""))}))
    used = cpu()
    status = jupyter_book("--toc", str(toc), "--path-output", str(folder))
    print(f"{cpu() - used:.1f} CPU-s: {(folder / '_build/html' / page).with_suffix('.html')}")
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the book into _build/html.")
    parser.add_argument("--fresh", action="store_true", help="run every chapter again")
    parser.add_argument("--jobs", type=int, default=2, help="chapters run at a time (default: 2)")
    parser.add_argument("--times", action="store_true", help="print what each chapter cost")
    parser.add_argument("--only", metavar="PAGE", help="one page, such as book/lecture2/made, on its own")
    options = parser.parse_args()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ.update(PYTHONPATH=path, OMP_NUM_THREADS="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    quiet()
    if options.only:
        return one(options.only)
    forget(options.fresh)
    run_all(options.jobs, options.times)
    return lay_out()


if __name__ == "__main__":
    sys.exit(main())
