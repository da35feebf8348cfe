"""The base class, on a model whose conditionals are simply a table."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dulcourse
from dulcourse.autoregressive import orders
from dulcourse.autoregressive.base import AutoregressiveModel, inverse_cdf
from dulcourse.errors import UsageError
from dulcourse.modes import evaluating


class Chain(AutoregressiveModel):
    """p(x_{o(t)} | x_{o(t−1)}) from a table [D, levels before (and none), levels]; labels shift it."""

    def __init__(self, shape, levels, order=None):
        super().__init__(shape, levels, order)
        table = torch.randn(self.dims, levels + 1, levels, generator=torch.Generator().manual_seed(1))
        self.table = torch.nn.Parameter(table)
        self.calls = 0
        self.modes = set()

    def logits(self, x, y=None):
        self.calls += 1
        self.modes.add(self.training)
        before = x.flatten(1)[:, self.order].roll(1, 1) + 1
        before[:, 0] = 0
        z = self.table[torch.arange(self.dims), before]
        if y is not None:
            z = z.roll(1, 2) * (y[:, None, None] + 1)
        return z[:, self.rank].movedim(2, 1).unflatten(2, self.shape)


@pytest.fixture
def chain(float64) -> Chain:
    return Chain((1, 2, 2), 3, torch.tensor([2, 0, 3, 1]))


def test_a_product_of_conditionals_is_a_distribution(chain, all_images):
    assert chain.log_prob(all_images(chain.shape, 3)).exp().sum().item() == pytest.approx(1)


def test_log_prob_follows_the_order(chain, all_images):
    x = all_images(chain.shape, 3)[50:51]
    symbols, before, expected = x.flatten().tolist(), 0, 0.0
    for t, i in enumerate([2, 0, 3, 1]):
        expected += torch.log_softmax(chain.table[t, before], 0)[symbols[i]].item()
        before = symbols[i] + 1
    assert chain.log_prob(x).item() == pytest.approx(expected)


def test_samples_follow_the_distribution(chain, all_images, generator):
    """Pearson's χ² of 20 000 samples over all 81 images: mean 80, standard deviation √160."""
    n, every = 20_000, all_images(chain.shape, 3)
    expected = chain.log_prob(every).exp() * n
    x = chain.sample(n, generator=generator)
    assert x.shape == (n, 1, 2, 2)
    code = x.flatten(1) @ torch.tensor([27, 9, 3, 1])
    observed = torch.bincount(code, minlength=81)
    assert ((observed - expected) ** 2 / expected).sum() < 80 + 4 * math.sqrt(160)


def test_labels_reach_the_logits(chain, generator):
    y = torch.tensor([0, 1, 2])
    x = chain.sample(3, y, generator=generator)
    assert not torch.allclose(chain.log_prob(x, y), chain.log_prob(x))


def test_a_model_takes_no_labels_unless_it_has_classes(chain):
    assert chain.classes is None
    with pytest.raises(UsageError, match="Chain is not class-conditional"):
        chain.check_labels(torch.tensor([0]), 1)
    assert AutoregressiveModel((1, 1, 1), 2, classes=3).classes == 3


def test_the_naive_loop_runs_the_network_once_a_symbol(chain, generator):
    chain.sample(5, generator=generator)
    assert chain.calls == chain.dims


def test_equal_noise_gives_equal_samples(chain):
    noise = chain.noise(6, torch.Generator().manual_seed(5))
    assert noise.shape == (6, 4)
    assert noise.dtype == torch.float64
    x = chain.sample(6, generator=torch.Generator().manual_seed(5))
    assert torch.equal(x, chain.from_noise(noise))


def test_the_noise_is_in_generation_order(chain, generator):
    """Changing the noise of the last step changes nothing but the symbol generated last."""
    noise = chain.noise(50, generator)
    late = noise.clone()
    late[:, 3] = (late[:, 3] + 0.5) % 1
    changed = (chain.from_noise(noise) != chain.from_noise(late)).flatten(1).any(0)
    assert changed[chain.order].tolist() == [False, False, False, True]


def test_sampling_is_in_evaluation_mode_and_leaves_no_trace(chain, generator):
    chain.train()
    assert not chain.sample(2, generator=generator).requires_grad
    assert chain.training
    assert chain.modes == {False}
    with pytest.raises(RuntimeError), evaluating(chain):
        raise RuntimeError
    assert chain.training


def test_the_order_travels_with_the_weights():
    order = torch.tensor([2, 0, 3, 1])
    source, target = Chain((1, 2, 2), 3, order), Chain((1, 2, 2), 3)
    target.load_state_dict(source.state_dict())
    x = torch.tensor([[[[0, 1], [2, 1]]]])
    assert torch.equal(source.log_prob(x), target.log_prob(x))


def test_the_order_belongs_to_the_model():
    order = orders.raster((1, 2, 2))
    model = Chain((1, 2, 2), 3, order)
    order[0] = 3
    assert model.order.tolist() == [0, 1, 2, 3]


def test_inverse_cdf_cuts_the_unit_interval_by_probability(float64):
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().expand(5, -1)
    u = torch.tensor([0.0, 0.199, 0.201, 0.699, 0.701])
    assert inverse_cdf(logits, u).tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-53])
def test_inverse_cdf_never_draws_the_impossible(u):
    inf = math.inf
    logits = torch.tensor([[-inf, 0.1, -inf, 0.7, 0.3, -inf], [-inf, -inf, 5.0, -inf, -inf, -inf]])
    drawn = inverse_cdf(logits, torch.full((2,), u, dtype=torch.float64))
    assert torch.isfinite(logits[torch.arange(2), drawn]).all()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(2, 1, 2, 2), "torch.float32, expected torch.int64"),
        (torch.zeros(2, 1, 2, 3, dtype=torch.int64), r"\[2, 1, 2, 3\], expected \[batch, 1, 2, 2\]"),
        (torch.zeros(1, 2, 2, dtype=torch.int64), r"\[1, 2, 2\], expected \[batch, 1, 2, 2\]"),
        (torch.full((2, 1, 2, 2), 3), "3, expected 0 to 2"),
    ],
)
def test_images_that_do_not_fit_are_refused_in_words(chain, x, words):
    with pytest.raises(UsageError, match=words):
        chain.check(x)


def test_log_prob_checks_its_images(chain):
    with pytest.raises(UsageError, match="expected 0 to 2"):
        chain.log_prob(torch.full((2, 1, 2, 2), 3))


@pytest.mark.parametrize("order", [[0, 1, 2, 2], [0, 1, 2], [1, 2, 3, 4]])
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(UsageError, match="not a permutation of 0 … 3"):
        Chain((1, 2, 2), 3, torch.tensor(order))


def test_sizes_that_make_no_model_are_refused():
    with pytest.raises(UsageError, match="levels is 1"):
        Chain((1, 2, 2), 1)
    with pytest.raises(UsageError, match=r"shape is \(1, 0, 2\)"):
        Chain((1, 0, 2), 3)


def test_a_model_without_logits_says_so():
    with pytest.raises(NotImplementedError, match="does not define logits"):
        AutoregressiveModel((1, 1, 1), 2).log_prob(torch.zeros(1, 1, 1, 1, dtype=torch.int64))


def test_nothing_that_a_homework_withholds_is_needed():
    """Base, orders, training and the package itself import without the models that students write."""
    code = """if True:
        import sys
        written = ("histogram", "mixture", "made", "causal", "pixelcnn", "gated_pixelcnn")
        withheld = {f"dulcourse.autoregressive.{name}" for name in written}
        sys.modules |= dict.fromkeys(withheld)  # importing one now fails
        import dulcourse.autoregressive.base, dulcourse.autoregressive.orders, dulcourse.training
        from dulcourse.autoregressive import base
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(dulcourse.__file__).parents[1])
