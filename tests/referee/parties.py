"""Sources whose law is known, and respondents of every kind."""

from collections.abc import Callable, Mapping
from itertools import product
from math import prod
from types import SimpleNamespace

import numpy as np
import torch
from safetensors.numpy import save

from dulcourse.referee.autoregressive import freeze
from dulcourse.referee.frozen import FrozenOrder
from dulcourse.referee.respondent import LocalRespondent, Malformed

Answer = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Law:
    """A known law of tiny images: a table over all L^D of them."""

    def __init__(self, shape: tuple[int, int, int], levels: int, seed: int = 0):
        self.shape, self.levels, self.dims = shape, levels, prod(shape)
        table = np.random.default_rng(seed).dirichlet(np.full(levels**self.dims, 0.3))
        self.table = table.reshape((levels,) * self.dims)

    def images(self) -> np.ndarray:
        """All of them, int64 [L^D, C, H, W]."""
        return np.array(list(product(range(self.levels), repeat=self.dims))).reshape(-1, *self.shape)

    def draw(self, n: int, generator: np.random.Generator) -> np.ndarray:
        return self.images()[generator.choice(self.table.size, size=n, p=self.table.reshape(-1))]

    def p(self, x: np.ndarray) -> float:
        return float(self.table[tuple(x.reshape(-1))])

    def bits(self, x: np.ndarray) -> float:
        return float(-np.log2(self.p(x)))

    def conditional(self, x: np.ndarray, position: int, order: np.ndarray) -> np.ndarray:
        """p(x_position = · | the symbols before it in the order), [L]."""
        rank = np.argsort(order)
        flat = x.reshape(-1)
        index = tuple(int(flat[i]) if rank[i] < rank[position] else slice(None) for i in range(self.dims))
        left = [i for i in range(self.dims) if rank[i] >= rank[position]]
        table = self.table[index]
        return table.sum(axis=tuple(k for k, i in enumerate(left) if i != position)) / table.sum()


class Answering:
    """Conditionals by a function of (x, position); every question is kept."""

    def __init__(self, answer: Answer):
        self.answer = answer
        self.questions: list[tuple[str, dict[str, np.ndarray]]] = []

    def call(self, name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.questions.append((name, {key: array.copy() for key, array in arrays.items()}))
        return {"log_p": self.answer(**arrays)}


def honest(law: Law, order: np.ndarray) -> Answering:
    """Knows the law and answers with it."""

    def answer(x, position):
        with np.errstate(divide="ignore"):
            rows = [law.conditional(a, i, order) for a, i in zip(x, position, strict=True)]
            return np.log(np.array(rows))

    return Answering(answer)


def erratic(levels: int, seed: int) -> Answering:
    """Deterministic nonsense from all that was seen: extreme bets, NaN, infinities, refusals."""
    memory = [seed]

    def answer(x, position):
        memory.append(int(x.sum()) * 31 + int(position[0]))
        generator = np.random.default_rng(np.abs(memory))
        if generator.random() < 0.1:
            raise Malformed("I would rather not")
        size = (len(x), levels)
        log_p = generator.normal(size=size) * 10.0 ** generator.integers(-2, 4, size=size)
        spoiled = generator.random(size) < 0.1
        log_p[spoiled] = generator.choice([np.nan, np.inf, -np.inf], size=spoiled.sum())
        return log_p

    return Answering(answer)


class Remembering(Answering):
    """Keeps every image it is shown; once it recognises one, it is certain of what comes next."""

    def __init__(self, levels: int):
        self.seen: list[np.ndarray] = []
        super().__init__(self._remember)
        self.levels = levels

    def _remember(self, x: np.ndarray, position: np.ndarray) -> np.ndarray:
        log_p = np.zeros((len(x), self.levels))
        for row, (image, i) in enumerate(zip(x.reshape(len(x), -1), position, strict=True)):
            for known in self.seen:
                if (known[:i] == image[:i]).all():
                    log_p[row, known[i]] += 3.0
        self.seen += list(x.reshape(len(x), -1))
        return log_p


def frozen_of(
    order: np.ndarray, shape: tuple[int, int, int], levels: int, **buffers: np.ndarray
) -> FrozenOrder:
    """What a checkpoint with this order declares."""
    return freeze(save({"order": np.asarray(order, np.int64), **buffers}), shape, levels)


def raster(shape: tuple[int, int, int], levels: int) -> FrozenOrder:
    return frozen_of(np.arange(prod(shape)), shape, levels)


def noise(shape: tuple[int, int, int], levels: int, n: int = 16) -> np.ndarray:
    """Decoys that know nothing."""
    return np.random.default_rng(99).integers(levels, size=(n, *shape))


def local(model: torch.nn.Module, name: str = "made", **facts) -> LocalRespondent:
    """A model of this process behind the respondents' protocol."""
    entry = SimpleNamespace(model=model, claim=None, history=None)
    vars(entry).update(facts)
    return LocalRespondent({name: entry})
