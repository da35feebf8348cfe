"""What chapters show of `benchmarks/results`: figures that took longer to measure than a page takes to build.

from book.kit import benchmark, glue

digits = benchmark("digits")
digits.table("MADE", "shared histogram")   # a cell's last value: the rows and their receipt
glue("made", digits.mean("MADE"))          # in the text: {glue:text}`made:.3f`
"""

import html
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure

__all__ = ["Benchmark", "Table", "benchmark", "glue"]

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def glue(name: str, value: float | str) -> None:
    """Keep a value for the text, which says {glue:text}`name`; nothing is shown here.

    It does what `myst_nb.glue` does with `display=False`, without imports that cost each chapter two seconds.
    """
    hidden = "application/papermill.record/"  # how MyST-NB knows it
    display(
        {f"{hidden}text/plain": repr(value)},
        raw=True,
        metadata={"scrapbook": {"name": name, "mime_prefix": hidden}},
    )


def benchmark(name: str) -> "Benchmark":
    """The results that `python -m benchmarks.NAME` wrote."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        known = ", ".join(sorted(path.stem for path in RESULTS.glob("*.json")))
        raise LookupError(f"no results are called {name!r}: expected one of {known}.")
    return Benchmark(name, json.loads(path.read_text()))


@dataclass(frozen=True)
class Benchmark:
    """Rows by name; each has the splits it was measured on and the receipt of that."""

    name: str
    rows: dict[str, dict]

    def bits(self, row: str) -> list[float]:
        """Test bits per dimension of each split, of a model or of another bound of one."""
        for name, entry in self.rows.items():
            if name == row:
                return [split["test"] for split in entry["splits"]]
            if row in entry["splits"][0].get("also", {}):
                return [split["also"][row] for split in entry["splits"]]
        raise LookupError(f"no row is called {row!r}: there are {', '.join(self.rows)}.")

    def mean(self, row: str) -> float:
        """The mean over the splits."""
        return statistics.mean(self.bits(row))

    def error(self, row: str) -> float:
        """Two standard errors of that mean; 0 where there is one split."""
        bits = self.bits(row)
        return 2 * statistics.stdev(bits) / len(bits) ** 0.5 if len(bits) > 1 else 0.0

    def rate(self, row: str) -> float:
        """Images sampled per CPU-second, the median over the splits."""
        return statistics.median(split["sampled_per_second"] for split in self._entry(row)["splits"])

    def receipt(self, *rows: str) -> str:
        """What, when, how often and on what the rows were measured, in words."""
        libraries: dict[str, dict[str, None]] = {}  # of rows that otherwise have the same receipt
        for row in rows:
            library = self._entry(row)["receipt"]["library"]
            libraries.setdefault(self._sentence(row), {})[library] = None
        return " ".join(f"{words} {', '.join(which)}." for words, which in libraries.items())

    def table(self, *rows: str) -> "Table":
        """Model, bits per dimension and sampling speed of the rows, with their receipt."""
        lines = [
            (row, f"{self.mean(row):.3f} ± {self.error(row):.3f}", f"{self.rate(row):,.0f}") for row in rows
        ]
        return Table(("model", "test bits/dim", "images sampled a second"), lines, self.receipt(*rows))

    def figure(self, *rows: str) -> Figure:
        """Each split a dot, each mean a bar: one line a row, the best on top."""
        ordered = sorted(rows, key=self.mean, reverse=True)
        figure, ax = plt.subplots(figsize=(7, 0.8 + 0.34 * len(rows)), layout="constrained")
        for place, row in enumerate(ordered):
            ax.plot(self.bits(row), [place] * len(self.bits(row)), ".", color="#0072B2", alpha=0.6)
            ax.plot(self.mean(row), place, "|", color="#D55E00", markersize=16, markeredgewidth=2)
        ax.set_yticks(range(len(rows)), ordered)
        ax.set(xlabel="test bits per dimension", ylim=(-0.6, len(rows) - 0.4))
        ax.grid(axis="x", alpha=0.4)
        ax.spines[["top", "right"]].set_visible(False)
        plt.close(figure)  # shown once, as the cell's value
        return figure

    def _entry(self, row: str) -> dict:
        self.bits(row)  # says which rows there are
        entries = self.rows.items()
        return next(e for name, e in entries if name == row or row in e["splits"][0].get("also", {}))

    def _sentence(self, row: str) -> str:
        receipt = self._entry(row)["receipt"]
        count = len(receipt["seeds"])
        return (
            f"Measured on {receipt['date']} with python -m benchmarks.{self.name}: {count} "
            f"split{'s' * (count > 1)}, at most {receipt['seconds']:g} CPU-seconds of training each; "
            f"torch {receipt['torch']}, Python {receipt['python']}, {receipt['machine']}, "
            "library"
        )


@dataclass(frozen=True)
class Table:
    """Rows under a head, and the receipt below them; a notebook shows it as a cell's last value."""

    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    receipt: str

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.head)
        body = "".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in self.lines)
        return (
            f'<table class="benchmark"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
            f'<p class="receipt">{html.escape(self.receipt)}</p>'
        )

    def __repr__(self) -> str:
        rows = [self.head, *self.lines]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.head))]
        aligned = ("   ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return "\n".join([*aligned, self.receipt])


def _cell(text: str) -> str:
    return f"<td>{html.escape(text)}</td>"
