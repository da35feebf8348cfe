"""The student's door: hand in a trained model, claim a number, check a problem, pack for upload.

    handin.begin("hw1_autoregressive")
    model = handin.trained("made", build, train, example=data.x[:8])
    handin.claim("made", 1.02)
    handin.check("made")
    handin.pack()

Everything works in a plain Python process. Nothing here decides a score: the grader judges what it
measures itself.
"""

import json
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dulcourse import contract
from dulcourse.errors import UsageError

__all__ = ["HandedIn", "Session", "begin", "check", "claim", "pack", "registry", "session", "trained"]


@dataclass
class HandedIn:
    """A model that was handed in, what the notebook says of it, and how it was trained."""

    model: nn.Module
    claim: float | None = None  # bits/dim
    history: Any = None  # a `dulcourse.training.History`, or whatever `train` returned


@dataclass
class Session:
    """Where and how models are handed in: `mode` is "train" or "replay" (build and load, never train)."""

    mode: str = "train"
    folder: Path = field(default_factory=lambda: Path("handin"))
    assignment: str | None = None
    graded: bool = False  # opened by the grader: a notebook's own `begin` leaves it alone


session = Session()
registry: dict[str, HandedIn] = {}


def begin(assignment: str, *, mode: str | None = None, folder: str | Path | None = None) -> None:
    """Say which homework this notebook is. A notebook names its assignment and nothing else.

    Only the grader states a `mode`; its session stays, whatever the notebook says afterwards.
    """
    if mode not in (None, "train", "replay"):
        raise UsageError(f"mode {mode!r} is neither 'train' nor 'replay'; leave it out in a notebook.")
    if session.graded and mode is None:
        return
    session.mode = mode or "train"
    session.folder = Path(folder or "handin")
    session.assignment = assignment
    session.graded = mode is not None


def trained(
    name: str,
    build: Callable[[], nn.Module],
    train: Callable[[nn.Module], Any],
    *,
    example: Int64[Tensor, "batch channels height width"],
    labels: Int64[Tensor, " labels"] | None = None,
) -> nn.Module | None:
    """Train a model once and hand it in: `build()` makes it, `train(model)` trains it in place.

    It may be of any family (`dulcourse.contract`); a class-conditional one needs the `labels` of the example.
    The weights are saved, a second model is built and loaded, and both must answer `example` alike:
    whatever is not in `state_dict` (an ordering, an average, "already initialised") would be lost on the
    way to the grader. The *reloaded* model is registered and returned. A problem that is not solved yet
    is said to be so, and gives None.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise UsageError(
            f"the name {name!r} cannot be a file; use lower-case letters, digits and underscores."
        )
    path = _path(name)
    try:
        model = build()
        if session.mode == "replay":
            return _replay(name, model, path, example, labels)
        history = train(model)
    except NotImplementedError:
        return _unsolved(name)
    contract.check(name, model, example, labels)
    _save(name, model, path)
    reloaded = _reload(name, build, model, path)
    try:
        _check_equal(name, model, reloaded, example, labels)
    except NotImplementedError:  # a flow without its inverse, for one
        path.unlink()
        return _unsolved(name)
    registry[name] = HandedIn(reloaded, history=history)
    return reloaded


def _unsolved(name: str) -> None:
    print(f"{name!r} is not solved yet (NotImplementedError); nothing was handed in.")


def claim(name: str, bits_per_dim: float | Float[Tensor, ""]) -> None:
    """Say what the notebook measured of its own model, in bits/dim. The referee compares; it never
    believes.
    """
    if name not in registry:
        known = ", ".join(sorted(registry)) or "none yet"
        print(f"No model {name!r} has been handed in (there is: {known}), so this claim is not recorded.")
        return
    registry[name].claim = float(torch.as_tensor(bits_per_dim).detach())


def check(problem: str, functions: Mapping[str, Any] | None = None) -> None:
    """Ask what the grader will ask, on public examples, and print what came out. Wrong answers are no errors.

    Functions are those of the notebook unless others are given, models those handed in. The grader's own
    questions are drawn from a secret, so nothing printed here is of record.
    """
    if session.graded:
        print(f"check({problem!r}) is for you: the grader asks its own questions.")
        return
    from dulcourse.referee import public
    from dulcourse.referee.respondent import LocalRespondent

    content = public.find(session.assignment, Path.cwd())
    respondent = LocalRespondent(registry, vars(sys.modules["__main__"]) if functions is None else functions)
    checkpoints = {name: _path(name).read_bytes() for name in registry if _path(name).is_file()}
    claims = {name: entry.claim for name, entry in registry.items()}
    for finding in public.examine(content, problem, respondent, checkpoints, claims):
        first, *more = finding.words
        print(("ok    " if finding.good else "look  ") + first)
        for line in more:
            print("      " + line)
        _picture(finding)
    print("\nThe grader will also look at: " + "; ".join(public.pending(content, problem)) + ".")


def pack(notebook: str | Path | None = None) -> Path:
    """Zip the notebook and what was handed in, for upload: `<assignment>.zip` beside the notebook."""
    if notebook is None and session.assignment is None:
        raise UsageError("name the notebook: handin.pack('homework.ipynb'); or call handin.begin first.")
    notebook = Path(notebook or f"{session.assignment}.ipynb")
    if session.graded:
        print("pack() is for you: the grader has the notebook already.")
        return notebook
    _check_notebook(notebook)
    archive, weights = notebook.with_suffix(".zip"), sorted(session.folder.glob("*.safetensors"))
    with _replacing(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(notebook, notebook.name)
        for path in weights:
            file.write(path, f"handin/{path.name}")
    handed_in = ", ".join(path.stem for path in weights) or "none"
    print(f"{archive} is ready to upload: {notebook.name}, and the models handed in ({handed_in}).")
    return archive


def _check_notebook(path: Path) -> None:
    """A notebook that the grader can read: nbformat 4, with a name for each cell."""
    if not path.is_file():
        raise UsageError(f"there is no {str(path)!r} here; name your notebook: handin.pack('….ipynb').")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cells = content["cells"]
        ids = [cell.get("id") for cell in cells]
        version = content["nbformat"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{str(path)!r} is no notebook ({type(error).__name__}); save it again.") from error
    if version != 4 or not ids or not all(isinstance(name, str) and name for name in ids):
        raise UsageError(f"{str(path)!r} has cells without ids; save it with a current Jupyter.")
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise UsageError(f"{str(path)!r} has two cells with the id {twice[0]!r}; delete the copy and save.")


def _picture(finding: Any) -> None:
    """What depends on what, where a notebook can show it."""
    if finding.matrix is None or "IPython" not in sys.modules or finding.good:
        return
    from IPython.display import display

    from dulcourse import plotting

    display(plotting.dependency(finding.matrix, finding.frozen.order))


def _path(name: str) -> Path:
    return session.folder / f"{name}.safetensors"


def _replay(
    name: str, model: nn.Module, path: Path, example: Tensor, labels: Tensor | None
) -> nn.Module | None:
    if not path.is_file():
        print(f"{name!r} was not handed in.")
        return None
    _load(name, model, path)
    contract.check(name, model, example, labels)
    registry[name] = HandedIn(model.eval())
    return registry[name].model


def _save(name: str, model: nn.Module, path: Path) -> None:
    """Write `state_dict` so that a reader sees the whole file or none. Shared tensors are written once
    each.
    """
    state = model.state_dict()
    for key, value in state.items():
        if not isinstance(value, Tensor) or isinstance(value, nn.parameter.UninitializedTensorMixin):
            raise UsageError(
                f"{name!r} keeps {key!r} in its state_dict as a {type(value).__name__}; only tensors "
                "can be saved: use self.register_buffer, and give lazy layers their sizes."
            )
    copies = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    with _replacing(path) as temporary:
        save_file(copies, temporary)


@contextmanager
def _replacing(path: Path) -> Iterator[str]:
    """A temporary file that takes the place of `path` when the block ends well, and vanishes when not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _load(name: str, model: nn.Module, path: Path) -> None:
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise UsageError(
            f"the saved weights of {name!r} do not fit what build() makes ({lines[-1].strip()}); "
            "build() must make the same layers every time, and train() must not add or replace any."
        ) from error


def _reload(name: str, build: Callable[[], nn.Module], model: nn.Module, path: Path) -> nn.Module:
    reloaded = build()
    ours = {tensor.data_ptr() for tensor in model.state_dict().values() if tensor.numel()}
    if any(tensor.data_ptr() in ours for tensor in reloaded.state_dict().values() if tensor.numel()):
        raise UsageError(
            f"build() for {name!r} returned tensors of the same model twice; it must make a new one."
        )
    _load(name, reloaded, path)
    return reloaded.eval()


def _check_equal(
    name: str, model: nn.Module, reloaded: nn.Module, example: Tensor, labels: Tensor | None
) -> None:
    """Trained and reloaded model answer alike, after a look at other images (state set by a first batch
    shows).
    """
    u = torch.rand(example.shape, generator=torch.Generator().manual_seed(0))
    others = (model.levels * u**3).long()  # darker than any data
    with suppress(Exception):  # they look like nothing it was trained on, so it may answer anything
        contract.answers(reloaded, others, labels, name=name)
    first = contract.answers(model.eval(), example, labels, name=name)
    second = contract.answers(reloaded, example, labels, name=name)
    for what, ours in first.items():
        ours, theirs = ours.double().cpu(), second[what].double().cpu()
        if not torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5):
            worst = (ours - theirs).abs().max().item()
            raise UsageError(
                f"{name!r} answers differently once saved and reloaded ({what} differ by up to {worst:.3g}): "
                "part of its state is not in state_dict. Likely an ordering, a mask, a running average or a "
                "flag such as 'initialised' kept as a plain attribute; use self.register_buffer."
            )
