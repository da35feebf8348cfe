"""Who answers the referee: an untrusted model behind one method, wherever it runs.

A respondent may be a model in this process (book, tests, `handin.check`) or one behind the grader's wall.
The referee cannot tell and need not: every answer is a claim, checked here for keys, shape, dtype and
finiteness.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from dulcourse.referee.precision import home, precisely

__all__ = [
    "LocalRespondent",
    "Malformed",
    "Respondent",
    "Spec",
    "ask",
    "at_once",
    "to_arguments",
    "to_arrays",
]

Arrays = Mapping[str, np.ndarray]

# Logits computed at once: what goes with them stays in a processor's cache. Of large images a few at least.
CHUNK, FEW = 1 << 16, 16
# Of flows and latent-variable models a graph is kept of each image: this many at once, more of small ones.
IMAGES, NUMBERS = 64, 1 << 16


@runtime_checkable
class Respondent(Protocol):
    """Answers named questions with arrays.

    Questions (`<model>` is the name given to `handin.trained`, x is int64 `[n, C, H, W]`). Of every model:

    | name | arrays sent | arrays returned |
    |---|---|---|
    | `<model>.sample` | n int64 `[]`, seed int64 `[]`, y? | x `[n, C, H, W]`, int64 or (flow) float |
    | `<model>.claim` | nothing | bits_per_dim float64 `[]` (NaN: none made) |
    | `<model>.history` | nothing | train, validation float64 `[k]`, step int64 `[k]` (k = 0: none kept) |
    | `function.<f>` | the arguments, by name | result (one array), or result0, result1, … for a tuple |

    Of autoregressive models:

    | name | arrays sent | arrays returned |
    |---|---|---|
    | `<model>.conditional` | x, position int64 `[n]`, y? | log_p float `[n, levels]` |
    | `<model>.logits` | x, y? | logits float `[n, levels, C, H, W]` |
    | `<model>.log_prob` | x, y? | log_prob float `[n]` (nats) |

    Of flows, with x float64 `[n, C, H, W]` in [0, levels), and of latent-variable models (all float64):

    | name | arrays sent | arrays returned |
    |---|---|---|
    | `<model>.forward` | x | z `[n, D]`, jacobian `[n, D, D]` (∂z/∂x), log_det `[n]` (nats) |
    | `<model>.inverse` | z `[n, D]` | x `[n, C, H, W]` |
    | `<model>.log_prob` | x | log_prob `[n]` (nats, a density) |
    | `<model>.encode` | x (int64) | mean, log_std `[n, latents]` |
    | `<model>.decode` | z `[n, latents]` | logits `[n, levels, C, H, W]` |
    | `<model>.log_prob` | x (int64), noise `[n, latents]` | log_prob `[n]` (nats): its log_weight |

    position is an index into `x.flatten(1)`; log_p is in nats up to a constant a row (logits will do); y,
    int64 `[n]`, are labels, sent to conditional models.
    """

    def call(self, name: str, arrays: Arrays) -> dict[str, np.ndarray]:
        """The answer, or `Malformed` when there is none that can be used."""
        ...


class Malformed(Exception):  # noqa: N818, it is an answer
    """An answer that cannot be used, with the reason in words. It is charged, never excused (rules 3 to
    5).
    """


@dataclass(frozen=True)
class Spec:
    """What one answered array must look like.

    `shape` has None where any size will do; `kind` is 'f' (any float) or 'i' (any integer or bool).
    """

    shape: tuple[int | None, ...]
    kind: str = "f"
    finite: bool = True


def ask(
    respondent: Respondent, name: str, arrays: Arrays, specs: Mapping[str, Spec]
) -> dict[str, np.ndarray]:
    """Put one question and check the answer: exactly the arrays of `specs`. Anything else is `Malformed`."""
    try:
        answer = respondent.call(name, arrays)
    except Malformed:
        raise
    except Exception as error:
        # Rule 5: once a question has been put nothing is infrastructure. Whatever went wrong is the
        # answer's fault, so nobody can buy fresh draws by making the machinery fail.
        raise Malformed(f"no answer to {name!r}: {type(error).__name__}") from error
    if set(answer) != set(specs):
        raise Malformed(f"{name!r} was answered with {sorted(answer)}; expected {sorted(specs)}")
    for key, spec in specs.items():
        _check(name, key, answer[key], spec)
    return dict(answer)


def _check(name: str, key: str, array: np.ndarray, spec: Spec) -> None:
    kinds, words = ("f", "real numbers") if spec.kind == "f" else ("iub", "integers")
    if array.dtype.kind not in kinds:
        raise Malformed(f"{name!r} answered {key} as {array.dtype}; expected {words}")
    wanted = "[" + ", ".join("any" if size is None else str(size) for size in spec.shape) + "]"
    fits = len(array.shape) == len(spec.shape) and all(
        want in (None, size) for size, want in zip(array.shape, spec.shape, strict=True)
    )
    if not fits:
        raise Malformed(f"{name!r} answered {key} with shape {list(array.shape)}; expected {wanted}")
    if spec.finite and not np.isfinite(array).all():
        raise Malformed(f"{name!r} answered {key} with numbers that are not finite")


class LocalRespondent:
    """Answers for models and functions of this process, those of a notebook for example.

    `models` maps names to what `handin.trained` registers (`.model`, `.claim`, `.history`), `functions`
    maps names to callables; both are looked up at every question. Whatever the student's code raises
    becomes `Malformed`.
    """

    def __init__(
        self, models: Mapping[str, Any] | None = None, functions: Mapping[str, Any] | None = None
    ) -> None:
        self._models = {} if models is None else models
        self._functions = {} if functions is None else functions

    def call(self, name: str, arrays: Arrays) -> dict[str, np.ndarray]:
        """The answer of the model or function that `name` names."""
        owner, _, question = name.rpartition(".")
        try:
            if owner == "function":
                return self._function(question, arrays)
            answer = getattr(self, f"_answer_{question}", None)
            if owner not in self._models or answer is None:
                raise Malformed(
                    f"{name!r} cannot be answered; models handed in: {sorted(self._models) or 'none'}"
                )
            return answer(self._models[owner], arrays)
        except NotImplementedError as error:
            raise Malformed(f"{name!r} is not solved yet (NotImplementedError)") from error
        except (Exception, SystemExit) as error:
            if isinstance(error, Malformed):
                raise
            raise Malformed(f"{name!r} raised {type(error).__name__}: {error}") from error

    def _function(self, name: str, arrays: Arrays) -> dict[str, np.ndarray]:
        function = self._functions.get(name)
        if not callable(function):
            raise Malformed(f"the notebook defines no function {name!r}")
        return to_arrays(function(**to_arguments(arrays)))

    def _answer_conditional(self, entry: Any, arrays: Arrays) -> dict[str, np.ndarray]:
        position = torch.from_numpy(np.ascontiguousarray(arrays["position"]))
        parts, start = [], 0
        for logits in _logits(entry.model, arrays):
            rows = torch.arange(len(logits))
            parts.append(logits.flatten(2)[rows, :, position[start : start + len(logits)]])
            start += len(logits)
        return {"log_p": torch.cat(parts).numpy()}

    def _answer_logits(self, entry: Any, arrays: Arrays) -> dict[str, np.ndarray]:
        return {"logits": torch.cat(list(_logits(entry.model, arrays))).numpy()}

    def _answer_log_prob(self, entry: Any, arrays: Arrays) -> dict[str, np.ndarray]:
        if "noise" in arrays:
            return _in_pieces(
                entry.model, arrays, lambda model, x, noise: model.log_weight(x, noise), "log_prob"
            )
        if arrays["x"].dtype.kind == "f":
            return _in_pieces(entry.model, arrays, lambda model, x: model.log_prob(x), "log_prob")
        with torch.no_grad():
            parts = [entry.model.log_prob(*batch) for batch in _batches(entry.model, arrays)]
        return {"log_prob": _plain(torch.cat(parts)).numpy()}

    def _answer_forward(self, entry: Any, arrays: Arrays) -> dict[str, np.ndarray]:
        return _in_pieces(entry.model, arrays, _forward, "z", "jacobian", "log_det")

    def _answer_inverse(self, entry: Any, arrays: Arrays) -> dict[str, np.ndarray]:
        return _in_pieces(entry.model, arrays, lambda model, z: model.inverse(z)[0], "x")

    def _answer_encode(self, entry: Any, arrays: Arrays) -> dict[str, np.ndarray]:
        return _in_pieces(entry.model, arrays, lambda model, x: model.encode(x), "mean", "log_std")

    def _answer_decode(self, entry: Any, arrays: Arrays) -> dict[str, np.ndarray]:
        return _in_pieces(entry.model, arrays, lambda model, z: model.decode(z), "logits")

    def _answer_sample(self, entry: Any, arrays: Arrays) -> dict[str, np.ndarray]:
        generator = torch.Generator().manual_seed(int(arrays["seed"]))
        labels = {"y": torch.from_numpy(arrays["y"]).to(home(entry.model))} if "y" in arrays else {}
        with torch.no_grad():
            x = entry.model.sample(int(arrays["n"]), generator=generator, **labels)
        return {"x": _plain(x).numpy()}

    def _answer_claim(self, entry: Any, arrays: Arrays) -> dict[str, np.ndarray]:
        return {"bits_per_dim": np.asarray(math.nan if entry.claim is None else entry.claim, np.float64)}

    def _answer_history(self, entry: Any, arrays: Arrays) -> dict[str, np.ndarray]:
        kinds = {"step": np.int64, "train": np.float64, "validation": np.float64}
        return {key: np.asarray(getattr(entry.history, key, ()), kind) for key, kind in kinds.items()}


def at_once(logits: int) -> int:
    """How many images, of so many logits each, are computed at once."""
    return max(FEW, CHUNK // logits)


def _batches(model: nn.Module, arrays: Arrays) -> list[tuple[Tensor, ...]]:
    """x (and y, if sent) on the model's device, in pieces of bounded size."""
    tensors = [torch.from_numpy(np.ascontiguousarray(arrays[key])) for key in ("x", "y") if key in arrays]
    size = at_once(model.levels * max(1, tensors[0][0].numel())) if len(tensors[0]) else 1
    return list(zip(*(t.to(home(model)).split(size) for t in tensors), strict=True))


def _logits(model: nn.Module, arrays: Arrays):
    with torch.no_grad():
        for batch in _batches(model, arrays):
            yield _plain(model.logits(*batch))


def _in_pieces(
    model: nn.Module, arrays: Arrays, answer: Callable[..., Any], *names: str
) -> dict[str, np.ndarray]:
    """`answer(model, *tensors)` under these names, in double precision and pieces of bounded size."""

    def whole(copy: nn.Module, dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
        tensors = [torch.from_numpy(np.ascontiguousarray(array)).to(home(copy)) for array in arrays.values()]
        tensors = [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in tensors]
        size = max(IMAGES, NUMBERS // (model.levels * math.prod(model.shape)))
        return [
            _answered(copy, answer, batch) for batch in zip(*(t.split(size) for t in tensors), strict=True)
        ]

    parts = precisely(model, whole)
    return {name: torch.cat([part[i] for part in parts]).numpy() for i, name in enumerate(names)}


def _answered(model: nn.Module, answer: Callable[..., Any], batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    with torch.set_grad_enabled(answer is _forward):
        answered = answer(model, *batch)
    answered = answered if isinstance(answered, tuple) else (answered,)
    return tuple(_plain(tensor).double() for tensor in answered)


def _forward(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z = f(x), ∂z/∂x by one backward pass for each element of z, and the log-determinant that f claims."""
    x = x.requires_grad_()
    z, log_det = model.forward(x)
    rows = []
    for i in range(z.shape[1]):
        (row,) = torch.autograd.grad(z[:, i].sum(), x, retain_graph=True, materialize_grads=True)
        rows.append(row.flatten(1))
    return z, torch.stack(rows, dim=1), log_det


def to_arguments(arrays: Arrays) -> dict[str, Any]:
    """What a student's function is called with: tensors, and plain Python numbers where an array has no
    axes.
    """
    return {
        name: array.item() if np.ndim(array) == 0 else torch.from_numpy(np.array(array))
        for name, array in arrays.items()
    }


def to_arrays(result: Any) -> dict[str, np.ndarray]:
    """What a student's function returned: `result`, or `result0`, `result1`, … for a tuple."""
    if isinstance(result, (tuple, list)) and any(isinstance(part, (Tensor, np.ndarray)) for part in result):
        return {f"result{i}": _array(part) for i, part in enumerate(result)}
    return {"result": _array(result)}


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        return _plain(value).numpy()
    array = np.asarray(value) if isinstance(value, (np.ndarray, np.generic, bool, int, float, list)) else None
    if array is None or array.dtype.kind not in "biuf":
        raise Malformed(f"a {type(value).__name__} was returned; expected a tensor, an array or a number")
    return array


def _plain(tensor: Tensor) -> Tensor:
    """Detached, on the processor, of a type that numpy knows."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
