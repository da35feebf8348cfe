"""Strings on their way to a page: what a notebook wrote reaches a reader's browser as text or not at all."""

import base64
import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from math import isfinite

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["LONGEST", "clean", "count", "data", "duration", "number", "pages", "points", "shorten", "signed"]

LONGEST = 20_000  # characters of one string on a page

# What a browser would obey without showing it: control characters (but tab and newline), marks that turn the
# direction of writing around, invisible joiners, halves of surrogate pairs (which UTF-8 cannot write), tags.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\ufffe\uffff\U000e0000-\U000e0fff]"
)
MARK = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
PILE = re.compile(f"({MARK}{{3}}){MARK}+")  # accents upon accents, which run over the lines above and below
TERMINAL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # colours of tracebacks


def clean(text: str, longest: int = LONGEST) -> str:
    """`text` with every unseen character named as ⟨U+202E⟩, colours removed, a long one's middle left out."""
    text = shorten(text, longest)  # before and after: naming a character makes the text longer
    text = TERMINAL.sub("", text.replace("\r\n", "\n"))
    text = PILE.sub(r"\1", text)
    return shorten(UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text), longest)


def shorten(text: str, longest: int = 400) -> str:
    """At most `longest` characters: the beginning and the end, and how much is missing between them."""
    if len(text) <= longest:
        return text
    head = longest * 2 // 3
    tail = max(0, longest - head - 40)
    return f"{text[:head]} … [{len(text) - head - tail} characters left out] … {text[len(text) - tail :]}"


def points(value: float | None) -> str:
    """17.5, 20, 3.33; a dash for what nobody has decided."""
    return "–" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def number(value: float | None, digits: int = 4) -> str:
    """A measured number, a huge one in powers of ten so that it keeps to its column; words for none."""
    if value is None:
        return "–"
    if not isfinite(value):
        return "not a finite number"
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.2e}"


def signed(value: float, digits: int = 4) -> str:
    """+0.0123 or −0.0045, with a true minus sign."""
    return f"{value:+.{digits}f}".replace("-", "−") if abs(value) < 1e6 else f"{value:+.2e}".replace("-", "−")


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(n: int, one: str, many: str | None = None) -> str:
    """1 cell, 2 cells."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def data(base64_text: str) -> Markup:
    """The body of a data: address, which must not be shortened; anything but base64 is refused."""
    if not re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", base64_text):
        raise ValueError("not base64")
    return Markup(base64_text)


@lru_cache(1)
def pages() -> Environment:
    """The templates. Every value is cleaned and escaped on its way in: a template cannot forget it."""
    environment = Environment(
        loader=PackageLoader("autograder", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: list[Callable] = [points, number, signed, duration, count, shorten, data]
    environment.filters |= {function.__name__: function for function in filters}
    environment.globals |= {"style": _own("report.css"), "script": _own("sort.js"), "policy": _policy()}
    return environment


def _finalize(value: object) -> object:
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _own(name: str) -> Markup:
    return Markup(files("autograder.report").joinpath(name).read_text(encoding="utf-8"))


def _policy() -> str:
    """What a page may do: show its own pictures and style, run our one script. Nothing from anywhere else."""
    fingerprint = base64.b64encode(hashlib.sha256(_own("sort.js").encode()).digest()).decode()
    return (
        "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{fingerprint}'; base-uri 'none'; form-action 'none'"
    )
