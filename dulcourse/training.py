"""One training loop for every model: progress, early stopping, best weights, resume after a kill."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from dulcourse.data.dataset import Dataset
from dulcourse.errors import UsageError
from dulcourse.likelihood import bits_per_dim
from dulcourse.modes import evaluating
from dulcourse.optimiser import AdamW

__all__ = ["History", "Loss", "constant", "cosine", "evaluate", "fit"]

Number = int | float
Loss = Callable[[nn.Module, Tensor, Tensor | None, torch.Generator], Tensor]


@dataclass
class History:
    """Losses in bits per dimension at each evaluation; `train` is the mean since the one before."""

    step: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    seconds: float = 0.0  # spent in optimiser steps, evaluation excluded, by the clock given to `fit`

    @property
    def best(self) -> int | None:
        """Index of the lowest validation loss, whose weights the model has after `fit`."""
        return min(range(len(self.step)), key=self.validation.__getitem__, default=None)


def constant(progress: float) -> float:
    """1: the same learning rate throughout."""
    return 1.0


def cosine(progress: float) -> float:
    """(1 + cos πp)/2, p the fraction of the steps (or of the seconds) that is spent: from 1 to 0."""
    return (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def negative_log_prob(model: nn.Module, x: Tensor, y: Tensor | None, generator: torch.Generator) -> Tensor:
    """−log p(x) in nats, one number an image: the loss of every model with an exact likelihood."""
    return -model.log_prob(x)


def evaluate(
    model: nn.Module,
    data: Dataset,
    *,
    loss: Loss | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 512,
) -> float:
    """Mean loss over the data in bits per dimension, in evaluation mode and without gradients.

    The generator feeds losses that draw noise; those with an exact likelihood need none.
    """
    loss, device = loss or negative_log_prob, _device(model)
    generator = generator or _generator(0, "evaluate", 0, device)
    total = 0.0
    with torch.no_grad(), evaluating(model):
        for start in range(0, len(data), batch_size):
            x, y = _batch(data, slice(start, start + batch_size), device)
            total += float(loss(model, x, y, generator).double().sum())
    return bits_per_dim(-total / len(data), data.dims)


def fit(
    model: nn.Module,
    train: Dataset,
    validation: Dataset,
    *,
    generator: torch.Generator,
    steps: int,
    batch_size: int = 64,
    lr: Number = 1e-3,
    weight_decay: Number = 0.0,
    schedule: Callable[[float], float] = constant,
    clip: Number | None = None,
    loss: Loss | None = None,
    device: str | torch.device = "cpu",
    evaluate_every: int = 100,
    patience: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    resume: bool = True,
    max_seconds: Number | None = None,
    clock: Callable[[], float] = time.perf_counter,
    progress: bool = True,
) -> History:
    r"""θ ← argmin_θ (1/n) Σ −log p_θ(x), by Adam on minibatches; the best weights on `validation` are kept.

    Arguments:
        model: trained in place. Afterwards it holds the weights with the lowest validation loss.
        train, validation: what `dulcourse.data.load` returns.
        generator: one number is drawn from it, and decides batches, dropout and noise of the whole run.
        steps, batch_size, lr, weight_decay: of the optimiser (decay is decoupled from the gradient: AdamW).
        schedule: factor on `lr` by the fraction of the run that is over: `constant` or `cosine`.
        clip: largest norm of the gradient.
        loss: loss(model, x, y, generator) → nats an image `[batch]`. −model.log_prob(x) when not given; for a
            model given labels, `lambda model, x, y, generator: -model.log_prob(x, y)`.
        evaluate_every: steps between evaluations; a checkpoint is written at each of them.
        patience: stop after so many evaluations in a row without a new best.
        checkpoint: a file (safetensors) from which the same call goes on after a kill, to the result that the
            undisturbed run would have had. A finished run is not repeated.
        resume: False starts anew and overwrites the checkpoint.
        max_seconds: stop when the optimiser steps have taken so long by `clock` (evaluation excluded).
        progress: show steps, rate, remaining time and bits per dimension.

    Returns: the losses at each evaluation, in bits per dimension.
    """
    settings = {"batch_size": batch_size, "lr": lr, "weight_decay": weight_decay, "clip": clip}
    settings |= {"evaluate_every": evaluate_every, "loss": _name(loss or negative_log_prob)}
    settings |= {"schedule": _name(schedule), "steps": None if schedule is constant else steps}
    _check_settings(settings, steps, train, validation)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    model.to(device)
    run = _Run(model, train, validation, loss or negative_log_prob, settings, seed, schedule)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and resume and path.exists():
        run.restore(path)
    with _private_randomness(torch.device(device)), _bar(run, steps, progress) as bar:
        while not run.finished(steps, patience, max_seconds):
            run.stretch(min(steps, _next_multiple(run.step, evaluate_every)), steps, max_seconds, clock, bar)
            if path is not None:
                run.save(path)
    model.load_state_dict(run.best)
    return run.history


class _Run:
    """A training run between two evaluations: all that a checkpoint must hold, and how to go on from it.

    Randomness is a pure function of (seed, purpose, step), so that the seed and the step restore it.
    """

    def __init__(self, model, train, validation, loss: Loss, settings: dict, seed: int, schedule):
        self.model, self.train, self.validation = model, train, validation
        self.loss, self.settings, self.seed, self.schedule = loss, settings, seed, schedule
        self.device = _device(model)
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = AdamW(parameters, settings["weight_decay"])
        self.step, self.history, self.best = 0, History(), _copy(model.state_dict())

    def finished(self, steps: int, patience: int | None, max_seconds: Number | None) -> bool:
        stale = len(self.history.step) - 1 - (self.history.best or 0)
        return (
            self.step >= steps
            or (patience is not None and stale >= patience)
            or (max_seconds is not None and self.history.seconds >= max_seconds)
        )

    def stretch(self, until: int, steps: int, max_seconds: Number | None, clock: Callable, bar: tqdm) -> None:
        """Optimiser steps up to `until` or out of time, then one evaluation."""
        _seed_layers(self.seed, self.step, self.device)
        noise = _generator(self.seed, "noise", self.step, self.device)
        total, first, began, before = 0.0, self.step, clock(), self.history.seconds
        self.model.train()
        for indices in self._batches(until):
            spent = max(self.step / steps, self.history.seconds / (max_seconds or math.inf))
            total = total + self._update(indices, noise, self.settings["lr"] * self.schedule(spent))
            self.step += 1
            self.history.seconds = before + clock() - began
            bar.update()
            if max_seconds is not None and self.history.seconds >= max_seconds:
                break
        self._record(float(total) / (self.step - first))
        bar.set_postfix_str(f"{self.history.validation[-1]:.3f} bits/dim")

    def _update(self, indices: Tensor, noise: torch.Generator, rate: Number) -> Tensor:
        nats = self.loss(self.model, *_batch(self.train, indices, self.device), noise).mean()
        self.optimiser.zero_grad()
        nats.backward()
        if self.settings["clip"] is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings["clip"])
        self.optimiser.step(rate)
        return nats.detach()

    def _record(self, train_nats: float) -> None:
        train = bits_per_dim(-train_nats, self.train.dims)
        generator = _generator(self.seed, "validation", 0, self.device)  # the same noise each time
        validation = evaluate(self.model, self.validation, loss=self.loss, generator=generator)
        if not (math.isfinite(train) and math.isfinite(validation)):
            raise UsageError(
                f"the loss is not finite at step {self.step} (training {train}, validation {validation} "
                f"bits/dim): try a lower lr (now {self.settings['lr']}) or clip the gradient."
            )
        self.history.step.append(self.step)
        self.history.train.append(train)
        self.history.validation.append(validation)
        if self.history.best == len(self.history.step) - 1:
            self.best = _copy(self.model.state_dict())

    def _batches(self, until: int) -> Iterator[Tensor]:
        """Minibatches for the steps up to `until`: each epoch a permutation without its incomplete end."""
        n = len(self.train)
        size = min(self.settings["batch_size"], n)
        start, per_epoch = self.step, n // size
        for step in range(start, until):
            epoch, batch = divmod(step, per_epoch)
            if batch == 0 or step == start:
                order = torch.randperm(n, generator=_generator(self.seed, "epoch", epoch, "cpu"))
            yield order[batch * size : (batch + 1) * size]

    # Checkpoints: tensors under "model.", "best.", "optimiser."; everything else as JSON in the metadata.

    def save(self, path: Path) -> None:
        """Write the checkpoint whole or not at all."""
        tensors = {f"model.{k}": v for k, v in _copy(self.model.state_dict()).items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        for i, state in enumerate(self.optimiser.states):
            tensors |= {f"optimiser.{i}.{k}": v for k, v in _copy(state).items()}
        about = {"seed": self.seed, "step": self.step, "history": asdict(self.history)}
        about["identity"] = self.identity()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(save(tensors, {"dulcourse.training": json.dumps(about)}))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of this very run."""
        about, tensors = _read(path)
        self._check_identity(about["identity"], path)
        self.seed, self.step, self.history = about["seed"], about["step"], History(**about["history"])
        self.model.load_state_dict(_under("model.", tensors))
        self.best = {k: v.to(self.device) for k, v in _under("best.", tensors).items()}
        for name, tensor in _under("optimiser.", tensors).items():
            i, key = name.split(".", 1)
            self.optimiser.states[int(i)][key].copy_(tensor)

    def identity(self) -> dict[str, str]:
        """What a checkpoint of this run must agree in (at a constant rate the steps may grow)."""
        state = {k: [str(v.dtype), list(v.shape)] for k, v in self.model.state_dict().items()}
        return {
            "model": f"{type(self.model).__name__} {_digest(json.dumps(state).encode())}",
            "training data": _describe(self.train),
            "validation data": _describe(self.validation),
            "settings": json.dumps(self.settings),
        }

    def _check_identity(self, theirs: dict[str, str], path: Path) -> None:
        for what, mine in self.identity().items():
            if theirs.get(what) != mine:
                raise UsageError(
                    f"checkpoint {path} is of another run: {what} {theirs.get(what)}, expected {mine}. "
                    "Delete the file, choose another, or pass resume=False to start anew."
                )


def _name(function: Callable) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


def _check_settings(settings: dict, steps: int, train: Dataset, validation: Dataset) -> None:
    for name, value in {**settings, "steps": steps}.items():
        if name in ("batch_size", "evaluate_every", "lr", "steps") and not value > 0:
            raise UsageError(f"{name} is {value}, expected a number above 0.")
    for name, data in {"training": train, "validation": validation}.items():
        if len(data) == 0:
            raise UsageError(f"the {name} set is empty: it has no example, expected at least 1.")


def _read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["dulcourse.training"])
            return about, {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, KeyError, ValueError) as error:
        raise UsageError(
            f"{path} is not a checkpoint of `fit` ({type(error).__name__}: {error}): "
            "delete the file, choose another, or pass resume=False to overwrite it."
        ) from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().clone().contiguous() for k, v in state.items()}


def _describe(data: Dataset) -> str:
    parts = [t.cpu().contiguous().numpy().tobytes() for t in (data.x, data.y) if t is not None]
    digest = _digest(*parts)
    return f"{list(data.x.shape)} {digest}"


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _batch(data: Dataset, indices: Tensor | slice, device: torch.device) -> tuple[Tensor, Tensor | None]:
    y = None if data.y is None else data.y[indices].to(device)
    return data.x[indices].to(device), y


def _device(model: nn.Module) -> torch.device:
    return next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def _derive(seed: int, purpose: str, number: int) -> int:
    words = hashlib.blake2b(f"{seed} {purpose} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(words, "big") >> 1


def _generator(seed: int, purpose: str, number: int, device: str | torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(_derive(seed, purpose, number))


def _seed_layers(seed: int, step: int, device: torch.device) -> None:
    """Dropout takes no generator and draws from torch's own: `fit` has that one to itself while it runs."""
    number = _derive(seed, "layers", step)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(number)


@contextmanager
def _private_randomness(device: torch.device) -> Iterator[None]:
    """Give torch's own generators back afterwards in the state in which they came."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield


def _bar(run: _Run, steps: int, progress: bool) -> tqdm:
    return tqdm(total=steps, initial=run.step, unit="step", disable=not progress, mininterval=0.5)


def _next_multiple(step: int, every: int) -> int:
    return (step // every + 1) * every
