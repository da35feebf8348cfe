"""A synthetic class for tests of the report: realistic results for every verdict, and a hostile one."""

import base64
import io
import json
from pathlib import Path

import numpy as np

from autograder.results import CellError, ItemResult, Measurement, Receipt, SubmissionResult, Verdict
from autograder.rubric import Model, Probe, Problem, Rubric, Sampler, Threshold, Tier, Written

__all__ = ["HOSTILE", "rubric", "write_class", "write_result"]

# Every string that a student can choose, chosen badly. SECRET must never be markup, only text.
HOSTILE = [
    "<script>document.title = 'owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "'><svg/onload=document.title='owned'>",
    "](javascript:document.title='owned') [a](javascript:1)",
    "</pre></details></main><h1>owned</h1><style>*{display:none}</style>",
    "{{ 7 * 7 }}{% raw %}${7*7}<!--",
    "<a href=\"javascript:document.title='owned'\">click</a>",
    "\x00\x07\x1b[31mred\x1b[0m\x1b]0;title\x07\u202eevil\u2066\u2028\u200b\ud800",
    "W" * 5_000,
    "y " * 60_000,
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞",
]


def rubric() -> Rubric:
    """The homework on autoregressive models, small."""

    def draw(generator):
        return {}

    def reference():
        return 0

    probe = {"draw": draw, "reference": reference}
    toy = {"data": "toy1d", "shape": (1, 1, 1), "levels": 100}
    glyphs = {"data": "glyphs", "shape": (1, 8, 8), "levels": 4}
    problems = (
        Problem(
            name="histogram",
            title="A histogram, by counting",
            items=(
                Probe(function="mean_bits_per_dim", points=2, **probe),
                Probe(function="fit_histogram", points=3, **probe),
                Model(name="histogram", reference="histogram", points=5, **toy),
            ),
        ),
        Problem(
            name="mixture",
            title="A mixture of logistics",
            items=(
                Probe(function="discretised_logistic_log_prob", points=5, **probe),
                Model(name="mixture", reference="mixture", points=5, **toy),
            ),
        ),
        Problem(
            name="made",
            title="A masked autoencoder for distributions",
            items=(
                Probe(function="mask", points=5, **probe),
                Model(name="made", reference="made", points=10, **glyphs),
                Sampler(model="made", points=5),
                Written(cell="made-strict", points=4),
            ),
        ),
    )
    thresholds = {name: Threshold(full=0.02, none=0.4) for name in ("histogram", "mixture", "made")}
    return Rubric(
        name="hw1_autoregressive",
        title="Autoregressive models",
        problems=problems,
        tiers={"smoke": Tier(seconds=15, thresholds=thresholds)},
        folder=Path("."),
    )


WORDS = {
    "function:mean_bits_per_dim": [
        "expected values near 2 bits, yours are 0.693 times that: this is nats.",
        "Divide by ln 2, at one place only.",
    ],
    "function:fit_histogram": ["shape (100,) was expected, (99,) came.", "np.bincount needs minlength."],
    "model:histogram": [
        "0.31 bits/dim more than the reference.",
        "Smooth the counts: a level that was never seen costs most.",
    ],
    "function:discretised_logistic_log_prob": [
        "the largest difference is 3.2 at the last level.",
        "Both tails are open: the last bin reaches to infinity.",
    ],
    "model:mixture": ["0.12 bits/dim more than the reference."],
    "function:mask": [
        "a boolean array of shape (7, 5) came, but 11 of 35 entries differ.",
        "With strict=True compare > with >=.",
    ],
    "model:made": [
        "output 5 sees input 7, which comes later in your order: it can look at what it should predict.",
        "With this order the output mask must be strict: compare > with >=.",
        "You claim 1.54 bits/dim, which is how such a leak looks from inside; the referee measured 8.51.",
    ],
    "sampler:made": [
        "your samples cost 76 standard deviations more than they should.",
        "Fill the positions in `order`, not in `rank`.",
    ],
}
FULL = {
    "function": "all 5 draws agree with the reference.",
    "model": "as good as the reference.",
    "sampler": "samples and density agree (z = 0.4).",
}


def write_class(out: Path) -> Rubric:
    """A class of every verdict into `out`."""
    homework, generator = rubric(), np.random.default_rng(0)
    students = [
        "ada",
        "bo",
        "chen",
        "dalia",
        "emil",
        "fatima",
        "goran",
        "hana",
        "ines",
        "jonas",
        "kofi",
        "lina",
        "marek",
    ]
    for student in students:
        quality = generator.choice([0.4, 0.75, 0.95, 1.0])
        keep = {item.id: generator.random() < quality for _, item in homework.items}
        write_result(out, student, homework, keep=keep)
    for verdict, reason in [
        (Verdict.student_error, ""),
        (
            Verdict.timeout,
            "The whole notebook has 15 s; it was in cell 9 (problem made) when they were over.",
        ),
        (Verdict.out_of_memory, "It asked for more than 4 GiB in cell 7."),
        (Verdict.kernel_died, "The kernel was gone after cell 5."),
        (Verdict.output_flood, "More than 8 MB of output came from cell 4."),
        (Verdict.sandbox_violation, "The channel to the grader was closed from inside."),
        (
            Verdict.unreadable,
            "Line 12 is not valid JSON: save the notebook again in Jupyter and hand that file in.",
        ),
        (Verdict.missing, "On the roster, but nothing was handed in."),
        (Verdict.infrastructure_error, "bubblewrap could not be started: no space left on device."),
    ]:
        write_result(
            out, f"student-{verdict.value.replace('_', '-')}", homework, verdict=verdict, reason=reason
        )
    return homework


def write_result(
    out: Path,
    student: str,
    homework: Rubric,
    *,
    verdict: Verdict = Verdict.graded,
    reason: str = "",
    keep: dict[str, bool] | None = None,
    text: str | None = None,
    pictures: bool = True,
) -> SubmissionResult:
    """One result with its files. `keep[item id]`: has it all points? `text` replaces every string."""
    ran = verdict not in {Verdict.unreadable, Verdict.missing, Verdict.infrastructure_error}
    folder = out / student
    folder.mkdir(parents=True)
    keep = keep or {}
    items = [
        _item(folder, problem, item, keep.get(item.id, False), text, pictures)
        for problem, item in homework.items
    ]
    if not ran or verdict is Verdict.sandbox_violation:
        zero = {"points": 0.0, "words": [reason], "figures": {}, "measurement": None}
        items = [
            item.model_copy(update=zero) for item in items if verdict is not Verdict.infrastructure_error
        ]
    errors = [
        CellError(
            problem="mixture",
            cell="mixture-fit",
            name="ValueError",
            message="operands could not be broadcast together with shapes (512,4) (4,512)",
        )
    ]
    measured = [item for item in items if item.kind != "written"]
    by_hand = sum(item.points for _, item in homework.items if item.kind == "written")
    result = SubmissionResult(
        assignment=homework.name,
        student=student,
        verdict=verdict,
        reason=text or reason,
        points=sum(item.points for item in measured),
        out_of=homework.points - by_hand,
        by_hand=by_hand if ran else 0,
        seconds=3.7 + len(student) * 1.3 if ran else 0.0,
        items=items,
        errors=[CellError(problem=text, cell=text, name=text, message=text)]
        if text
        else errors * (verdict is Verdict.student_error),
        notes=[text or "Cell 3 had been changed although it is locked: restored from the release."] * ran,
        receipt=_receipt(text) if ran else None,
    )
    (folder / "result.json").write_text(json.dumps(result.model_dump(mode="json")))
    if ran:
        (folder / "executed.json").write_text(json.dumps(_cells(text)))
    return result


def _item(folder, problem, item, keep, text, pictures) -> ItemResult:
    if item.kind == "written":
        return ItemResult(
            id=item.id, problem=problem.name, kind="written", points=None, out_of=item.points, words=[]
        )
    lost = {"probe": 1.0, "model": 0.7, "sampler": 1.0}[item.kind]
    words = [FULL[item.id.partition(":")[0]]] if keep else WORDS[item.id]
    figures = {}
    if pictures and item.kind == "model":
        figures = {"curves": f"{item.name}-curves.png", "dependency": f"{item.name}-dependency.png"}
    elif pictures and item.kind == "sampler":
        figures = {"samples": f"{item.model}-samples.png"}
    for name, file in figures.items():
        (folder / file).write_bytes(png(name))
    return ItemResult(
        id=item.id,
        problem=problem.name,
        kind=item.kind,
        points=item.points * (1 if keep else 1 - lost),
        out_of=item.points,
        words=[text] if text else words,
        measurement=_measurement(keep) if item.kind == "model" else None,
        figures=figures,
    )


def _measurement(keep: bool) -> Measurement:
    excess = 0.004 if keep else 0.287
    return Measurement(
        bits_per_dim=1.2231 + excess,
        standard_error=0.0123,
        reference_bits_per_dim=1.2231,
        difference=excess,
        difference_standard_error=0.0041,
        images=2048,
        failures=0 if keep else 3,
        claimed_bits_per_dim=1.2279 if keep else 0.8467,
        own_bits_per_dim=1.2269 if keep else None,
    )


def _receipt(text: str | None) -> Receipt:
    return Receipt(
        submitted="0b" * 32,
        notebook="a3" * 32,
        rubric="5f" * 32,
        library="71" * 32,
        draws="c9" * 32,
        seed=0,
        device="cpu",
        tier="smoke",
        torch="2.13.0",
        limits=text or "cgroup-v1",
    )


def _cells(text: str | None) -> list[dict]:
    """An executed notebook, as the session streams it."""
    picture = base64.b64encode(png("from the notebook")).decode()
    code = (
        "def mask(in_degrees, out_degrees, strict):\n"
        "    compare = torch.gt if strict else torch.ge\n"
        "    return compare(out_degrees.unsqueeze(1), in_degrees)"
    )
    answer = "A unit that saw its own input would have nothing left to predict."
    return [
        {"index": 0, "id": "setup", "problem": None, "source": "import torch", "text": [], "images": []},
        {
            "index": 1,
            "id": "mask",
            "problem": "made",
            "source": text or code,
            "text": [text or "ok"],
            "images": [],
        },
        {
            "index": 2,
            "id": text or "plot",
            "problem": text,
            "source": text or "show_images(x)",
            "text": [text or ""],
            "images": [picture, "<svg>", "aGVsbG8="],
        },
        {
            "index": 3,
            "id": "made-strict",
            "problem": "made",
            "source": text or answer,
            "text": [],
            "images": [],
        },
    ]


def png(name: str) -> bytes:
    """A small picture with a description, as `draw` makes them."""
    from PIL import Image, PngImagePlugin

    picture = Image.fromarray((np.add.outer(np.arange(240), np.arange(360)) % 256).astype(np.uint8))
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Description", f"A picture of {name}.")
    file = io.BytesIO()
    picture.save(file, "PNG", pnginfo=info)
    return file.getvalue()
