"""What a model of each family must have, so that somebody who did not write it can load it and ask it.

| family | what it defines | what it is asked |
|---|---|---|
| autoregressive | `logits(x)` or, with `classes`, `logits(x, y)`; the buffer `order` | logits of images |
| flow | `forward(x)` and `inverse(z)`, each with its log-determinant | both, at images + noise |
| latent | `encode(x)`, `decode(z)`, `latents` | both, at images and at the mean of their z |

All have `shape` = (C, H, W) and `levels`. The family is found by what a model defines, not by what it derives
from.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from dulcourse.errors import UsageError
from dulcourse.referee.precision import home

__all__ = ["Family", "answers", "check", "family_of"]

Family = Literal["autoregressive", "flow", "latent"]
Images = Int64[Tensor, "batch channels height width"]
Labels = Int64[Tensor, " batch"]

METHODS: dict[Family, tuple[str, ...]] = {
    "autoregressive": ("logits",),
    "flow": ("forward", "inverse"),
    "latent": ("encode", "decode"),
}
ATTRIBUTES: dict[Family, str] = {"autoregressive": "order", "flow": "levels", "latent": "latents"}


def family_of(model: Any) -> Family:
    """The family whose methods a model defines. Raises `UsageError` when they are none's."""
    if isinstance(model, nn.Module):
        fitting = [family for family, names in METHODS.items() if all(_defines(model, n) for n in names)]
        # Of two families that fit (a flow with a helper called logits) the one that fits in whole.
        whole = [family for family in fitting if getattr(model, ATTRIBUTES[family], None) is not None]
        if fitting:
            return (whole or fitting)[0]
    raise UsageError(
        f"this is a {type(model).__name__}; expected a torch module with logits(x) (autoregressive), with "
        "forward(x) and inverse(z) (a flow), or with encode(x) and decode(z) (latent variables)."
    )


def _defines(model: nn.Module, method: str) -> bool:
    # Every module has a `forward`, which is nobody's until a class defines it.
    return (
        callable(getattr(model, method, None)) and getattr(type(model), method, None) is not nn.Module.forward
    )


def check(name: str, model: Any, example: Tensor, labels: Tensor | None = None) -> Family:
    """What the model lacks that every model of its family has, as a `UsageError`; its family if nothing."""
    try:
        family = family_of(model)
    except UsageError as error:
        raise UsageError(f"{name!r} cannot be handed in: {error}") from None
    _check_sizes(name, model)
    _check_example(name, model, example)
    _check_labels(name, model, example, labels)
    if family == "autoregressive":
        _check_order(name, model)
    if family == "latent":
        latents = getattr(model, "latents", None)
        if not isinstance(latents, int) or latents < 1:
            raise UsageError(
                f"{name!r} has latents {latents!r}; expected an integer, self.latents: the numbers in one z."
            )
    return family


def _check_sizes(name: str, model: nn.Module) -> None:
    shape, levels = tuple(getattr(model, "shape", ())), getattr(model, "levels", None)
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise UsageError(f"{name!r} has shape {shape!r}; expected self.shape = (channels, height, width).")
    if not isinstance(levels, int) or levels < 2:
        raise UsageError(f"{name!r} has levels {levels!r}; expected an integer, self.levels, of at least 2.")


def _check_example(name: str, model: nn.Module, example: Tensor) -> None:
    if example.dtype != torch.int64 or tuple(example.shape[1:]) != tuple(model.shape):
        got = f"{example.dtype} {tuple(example.shape[1:])}"
        raise UsageError(f"the example images are {got}; {name!r} is for torch.int64 {tuple(model.shape)}.")
    if len(example) == 0 or example.min() < 0 or example.max() >= model.levels:
        raise UsageError(
            f"the example must hold at least one image with values from 0 to {model.levels - 1}."
        )


def _check_labels(name: str, model: nn.Module, example: Tensor, labels: Tensor | None) -> None:
    classes = getattr(model, "classes", None)
    if classes is None:
        if labels is not None:
            raise UsageError(f"{name!r} has no classes, so it takes no labels: hand it in without labels=.")
        return
    if labels is None:
        raise UsageError(
            f"{name!r} is conditional on {classes} classes: pass the labels of the example, "
            "handin.trained(…, example=data.x[:8], labels=data.y[:8])."
        )
    fits = labels.dtype == torch.int64 and labels.shape == example.shape[:1]
    if not fits or labels.min() < 0 or labels.max() >= classes:
        raise UsageError(
            f"labels are {labels.dtype} {tuple(labels.shape)}; expected one torch.int64 from 0 to "
            f"{classes - 1} for each of the {len(example)} example images."
        )


def _check_order(name: str, model: nn.Module) -> None:
    dims = torch.Size(model.shape).numel()
    state = model.state_dict()
    if "order" not in state:
        raise UsageError(
            f"{name!r} has no buffer 'order'; derive from AutoregressiveModel, or call "
            "self.register_buffer('order', …) with the index of the t-th generated symbol at t."
        )
    order = state["order"].cpu()
    if order.dtype != torch.int64 or not torch.equal(order.sort().values, torch.arange(dims)):
        raise UsageError(f"the buffer 'order' of {name!r} must hold each of 0 … {dims - 1} once, as int64.")
    if "rank" in state and not torch.equal(order.argsort(), state["rank"].cpu()):
        raise UsageError(
            f"the buffer 'rank' of {name!r} is not the inverse of 'order': rank[order[t]] must be t "
            "(rank = order.argsort())."
        )


def answers(
    model: nn.Module, example: Images, labels: Labels | None = None, *, name: str | None = None
) -> dict[str, Tensor]:
    """All that a grader could ask of the model about these images, in the mode that it is in.

    No noise is drawn: a flow is asked at images + ½ and at the z that it makes of them, a latent-variable
    model at the images and at the means it gives them. Two models are the same if their answers are. Raises
    `UsageError` for an answer of another shape, or with numbers that are not finite.
    """
    called = type(model).__name__ if name is None else name
    x = example.to(home(model))
    y = None if labels is None else labels.to(x.device)
    with torch.no_grad():
        found = _ANSWERS[family_of(model)](called, model, x, y)
    return {what: answer.detach() for what, answer in found.items()}


def _autoregressive(name: str, model: Any, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
    logits = model.logits(x) if y is None else model.logits(x, y)
    _check_answer(name, "logits", logits, (len(x), model.levels, *model.shape))
    return {"logits": logits} | {key: getattr(model, key) for key in ("order", "rank") if hasattr(model, key)}


def _flow(name: str, model: Any, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
    floats = (t.dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point())
    z, log_det = _pair(
        name, "forward(x)", "(z, log_det)", model.forward(x.to(next(floats, torch.float32)) + 0.5)
    )
    _check_answer(name, "z", z, (len(x), torch.Size(model.shape).numel()))
    _check_answer(name, "log_det", log_det, (len(x),))
    back, _ = _pair(name, "inverse(z)", "(x, log_det)", model.inverse(z))
    _check_answer(name, "x of inverse", back, tuple(x.shape))
    return {"z": z, "log_det": log_det, "x of inverse": back}


def _latent(name: str, model: Any, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
    mean, log_std = _pair(name, "encode(x)", "(mean, log_std)", model.encode(x))
    for what, part in (("mean", mean), ("log_std", log_std)):
        _check_answer(name, what, part, (len(x), model.latents))
    logits = model.decode(mean)
    _check_answer(name, "logits of decode", logits, (len(x), model.levels, *model.shape))
    return {"mean": mean, "log_std": log_std, "logits of decode": logits}


_ANSWERS: dict[Family, Callable[[str, Any, Tensor, Tensor | None], dict[str, Tensor]]] = {
    "autoregressive": _autoregressive,
    "flow": _flow,
    "latent": _latent,
}


def _pair(name: str, method: str, expected: str, answer: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(answer, tuple) or len(answer) != 2 or not all(isinstance(a, Tensor) for a in answer):
        raise UsageError(f"{method} of {name!r} returns a {type(answer).__name__}; expected {expected}.")
    return answer


def _check_answer(name: str, what: str, answer: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(answer.shape) != shape:
        raise UsageError(f"{name!r} gives {what} of shape {tuple(answer.shape)}; expected {shape}.")
    if not torch.isfinite(answer).all():
        raise UsageError(
            f"{name!r} gives {what} that are not finite; look for log(0) and for a diverged training."
        )
