"""The order of an examination: frozen, then drawn, then asked; each image once; one party at a time.

The scoring functions are arithmetic. What they assume about time is kept here, so that a grader cannot
break it by mistake: the wrong order raises.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Int64

from dulcourse import data
from dulcourse.errors import UsageError, unknown
from dulcourse.randomness import KEY_BYTES, Label
from dulcourse.referee import autoregressive, flow, latent
from dulcourse.referee import secret as secrets
from dulcourse.referee.frozen import Frozen

__all__ = ["Exam", "ImagesOnce"]

Party = TypeVar("Party")


class ImagesOnce:
    """A ledger of the images that were shown: each index of each set leaves it once."""

    def __init__(self) -> None:
        self._issued: dict[str, set[int]] = {}

    def take(self, name: str, indices: Iterable[int]) -> list[int]:
        """The indices, if none of them was taken before."""
        wanted = [int(index) for index in indices]
        issued = self._issued.setdefault(name, set())
        again = issued.intersection(wanted)
        # Rule 2: whoever has seen an image can remember it; a second question about it measures memory.
        if again or len(set(wanted)) != len(wanted):
            raise UsageError(
                f"images of {name!r} were asked for twice, {min(again or wanted)} for one: draw others."
            )
        issued.update(wanted)
        return wanted

    def left(self, name: str, indices: Iterable[int]) -> list[int]:
        """Those of the indices that were not taken yet, in the order given."""
        issued = self._issued.get(name, set())
        return [index for index in indices if index not in issued]


class Exam:
    """One submission's examination, under the secret of its batch.

        exam = Exam(secret, "ada")
        frozen = exam.freeze("made", checkpoint, shape, levels)      # before anything is drawn
        with exam.party(session_a) as a: …                           # samples, probes
        with exam.party(session_b) as b:                             # refused while a is alive
            images = exam.images("made", "glyphs", 2048, size=8)
            score(b, "made", frozen, images.x.numpy(), generator=exam.generator("score", "made"), …)

    Every draw is a function of (secret, submission, its name): a grader that was killed draws the same again.
    """

    def __init__(self, secret: bytes, submission: str) -> None:
        if len(secret) < KEY_BYTES:
            raise UsageError(
                f"a secret of {len(secret)} bytes can be guessed; {KEY_BYTES} cannot: new_secret()."
            )
        self._secret, self._submission = secret, submission
        self._frozen: dict[str, Frozen] = {}
        self._drawn: set[tuple[Label, ...]] = set()
        self._ledger = ImagesOnce()
        self._party: object | None = None

    def freeze(
        self,
        name: str,
        checkpoint: bytes,
        shape: tuple[int, int, int],
        levels: int,
        required_order: Int64[np.ndarray, " D"] | None = None,
        *,
        family: Literal["autoregressive", "flow", "latent"] = "autoregressive",
        latents: int | None = None,
    ) -> Frozen:
        """`freeze` of the model's family, before the first draw. `latents` is for latent models.

        Raises `Malformed` for a checkpoint that cannot be used.
        """
        # Rule 1: an order, a grouping or weights declared after a draw can be chosen to fit it.
        if self._drawn:
            raise UsageError(
                f"{name!r} cannot be frozen any more: something was drawn already. Freeze first."
            )
        self._frozen[name] = _freeze(family, checkpoint, tuple(shape), levels, required_order, latents)
        return self._frozen[name]

    def generator(self, *labels: Label) -> np.random.Generator:
        """The random numbers of one purpose. Each purpose draws once."""
        # Rule 5: no second draw for a second try; whatever failed keeps the draws it failed on.
        if labels in self._drawn:
            raise UsageError(f"{labels!r} was drawn already: what failed is charged, not repeated.")
        self._drawn.add(labels)
        return secrets.generator(self._secret, "submission", self._submission, *labels)

    def images(self, model: str, name: str, n: int, **options) -> data.Dataset:
        """n images, and their labels where they have any, that no other model and no other question is shown.

        They are this submission's alone. Two sandboxes that were shown the same images at once could tell
        each other what came after a position by how busy they keep the machine; the paired difference to
        the reference takes out the luck of the draw instead. A finite data set is public: its test images
        are dealt out in an order that only the secret knows, each once for all models together.
        """
        if model not in self._frozen:
            raise UsageError(f"{model!r} was not frozen: an examination starts with freeze().")
        self._drawn.add(("images", model))
        if name not in data.unlimited():
            return self._public_images(name, n, options)
        indices = self._ledger.take(model, range(n))
        key = secrets.derive(self._secret, "submission", self._submission, "images", model)
        return data.fresh(name, key, indices, **options)

    def _public_images(self, name: str, n: int, options: dict) -> data.Dataset:
        test = data.load(name, "test", **options)
        order = secrets.generator(self._secret, "submission", self._submission, "deal", name).permutation(
            len(test)
        )
        ledger = f"test images of {name}"  # no model has spaces in its name
        left = self._ledger.left(ledger, order.tolist())
        if n > len(left):
            raise UsageError(
                f"{n} test images of {name!r} were asked for and {len(left)} are left of {len(test)}."
            )
        indices = self._ledger.take(ledger, left[:n])
        y = None if test.y is None else test.y[indices]
        return data.Dataset(name, "test", test.x[indices], y, test.levels)

    @contextmanager
    def party(self, session: AbstractContextManager[Party]) -> Iterator[Party]:
        """Open a sandbox, give it to the block, and close it; there is never more than one."""
        # Rule 8: two parties that live at once can talk, by timing if by nothing else.
        if self._party is not None:
            raise UsageError(
                "the party before must be gone before the next one starts: leave its block first."
            )
        self._party = session
        try:
            with session as alive:
                yield alive
        finally:
            self._party = None


def _freeze(
    family: str, checkpoint: bytes, shape, levels: int, required_order, latents: int | None
) -> Frozen:
    if family == "autoregressive":
        return autoregressive.freeze(checkpoint, shape, levels, required_order)
    if family == "flow":
        return flow.freeze(checkpoint, shape, levels)
    if family == "latent":
        return latent.freeze(checkpoint, shape, levels, latents)
    raise unknown("family", family, ["autoregressive", "flow", "latent"])
