"""Both PixelCNNs are distributions in raster order, sampled with a cache; and the first has a blind spot."""

import pytest
import torch

from dulcourse.autoregressive import orders
from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.autoregressive.causal import HorizontalConv, MaskedConv, Pointwise, VerticalConv, caching
from dulcourse.autoregressive.gated_pixelcnn import GatedPixelCNN
from dulcourse.autoregressive.pixelcnn import PixelCNN
from dulcourse.errors import UsageError

MODELS = [PixelCNN, GatedPixelCNN]
SHAPES = [(1, 6, 6), (3, 4, 5), (1, 2, 7), (2, 5, 1), (1, 1, 1)]
both = pytest.mark.parametrize("kind", MODELS)


def visible(shape, first, kernel, blocks):
    """bool [D, D]: which symbols masked convolutions can see, by walking back through the layers.

    A symbol at (row, column, channel) sees in a k×k window what is before it, in this order; through the
    blocks it stands for itself, too.
    """
    C, H, W = shape
    index = {(r, c, g): g * H * W + r * W + c for r in range(H) for c in range(W) for g in range(C)}

    def window(symbols, k, strict):
        for r, c, g in symbols:
            for u, v, b in index:
                near = abs(u - r) <= k // 2 and abs(v - c) <= k // 2
                if near and ((u, v, b) < (r, c, g) or (not strict and (u, v, b) == (r, c, g))):
                    yield u, v, b

    allowed = torch.zeros(C * H * W, C * H * W, dtype=torch.bool)
    for symbol, i in index.items():
        symbols = {symbol}
        for _ in range(blocks):
            symbols = set(window(symbols, kernel, strict=False))
        for other in window(symbols, first, strict=True):
            allowed[i, index[other]] = True
    return allowed


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("first", "kernel", "blocks"), [(3, 3, 2), (5, 3, 1), (7, 3, 5), (3, 5, 3), (7, 3, 0)]
)
def test_pixelcnn_sees_what_its_windows_reach(
    shape, first, kernel, blocks, float64, generator, dependencies, earlier
):
    model = PixelCNN(shape, 3, 18, blocks, first=first, kernel=kernel, generator=generator)
    expected = visible(shape, first, kernel, blocks)
    assert not (expected & ~earlier(model.order)).any()
    assert torch.equal(dependencies(model, generator, images=24), expected)


@pytest.mark.parametrize(("first", "kernel"), [(7, 3), (3, 3), (5, 5)])
def test_the_blind_spot_is_to_the_right_however_deep_the_network(
    first, kernel, float64, generator, dependencies, earlier
):
    """A pixel r rows up and c columns to the right is invisible where c > ⌊k₀/2⌋ + (r − 1)⌊k/2⌋."""
    H = W = 8
    model = PixelCNN((1, H, W), 3, 12, 8, first=first, kernel=kernel, generator=generator)
    blind = torch.zeros(H * W, H * W, dtype=torch.bool)
    for i in range(H * W):
        for j in range(i):
            r, c = i // W - j // W, j % W - i % W
            blind[i, j] = c > first // 2 + (r - 1) * (kernel // 2)
    missing = earlier(model.order) & ~dependencies(model, generator)
    assert torch.equal(missing, blind)
    assert missing.sum() == {(7, 3): 125, (3, 3): 322, (5, 5): 146}[first, kernel]


def test_residuals_are_added_once(float64, generator):
    """A block that says nothing changes nothing."""
    model = PixelCNN((1, 5, 5), 3, 6, 1, generator=generator)
    (block,) = model.blocks
    h = torch.randn(2, 6, 5, 5, generator=generator)
    assert not torch.equal(block(h), h)
    torch.nn.init.zeros_(block.after.weight)
    assert torch.equal(block(h), h)


@both
@pytest.mark.parametrize(
    ("shape", "levels"), [((1, 2, 2), 2), ((3, 1, 2), 2), ((2, 2, 2), 2), ((1, 2, 3), 3), ((1, 1, 1), 5)]
)
def test_the_probabilities_of_all_images_sum_to_one(kind, shape, levels, float64, generator, all_images):
    model = kind(shape, levels, 6, 2, classes=2, generator=generator)
    x = all_images(shape, levels)
    for label in (0, 1):
        assert model.log_prob(x, torch.full((len(x),), label)).exp().sum().item() == pytest.approx(1)


@both
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_cached_sampling_equals_the_naive_loop_given_the_noise(kind, shape, classes, n, float64, generator):
    model = kind(shape, 4, 12, 3, classes=classes, cosines=classes and 2, dropout=0.5, generator=generator)
    y = None if classes is None else labels(model, n, generator)
    model.eval()
    noise = model.noise(n, generator)
    assert torch.equal(model.from_noise(noise, y), AutoregressiveModel.from_noise(model, noise, y))


@both
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_cached_logits_are_those_of_the_whole_image(kind, dtype, tolerance, generator):
    """Not bit for bit, since the terms of a product are added up in another order."""
    model = kind((3, 6, 5), 4, 24, 3, classes=2, generator=generator).to(dtype).eval()
    x, y = torch.randint(4, (3, 3, 6, 5), generator=generator), labels(model, 3, generator)
    whole, known = model.logits(x, y), torch.zeros_like(x)
    with torch.no_grad(), caching(model, model.shape) as cursor:
        for i in model.order.tolist():
            c, h, w = i // 30, i % 30 // 5, i % 5
            cursor.move(h, w)
            r, s = cursor.fed or (0, 0)
            step = model.logits(known[:, :, r : r + 1, s : s + 1], y)
            torch.testing.assert_close(
                step[:, :, c, 0, 0], whole[:, :, c, h, w], atol=tolerance, rtol=tolerance
            )
            known[:, c, h, w] = x[:, c, h, w]


@both
def test_sampling_computes_each_pixel_once_for_each_of_its_symbols(kind, generator):
    model = kind((2, 3, 4), 3, 8, 2, generator=generator)
    made = {}
    for layer in model.modules():
        if isinstance(layer, (MaskedConv, HorizontalConv, VerticalConv, Pointwise)):
            layer.register_forward_hook(
                lambda layer, _, z: made.update({layer: made.get(layer, 0) + z.shape[2] * z.shape[3]})
            )
    model.sample(2, generator=generator)
    rows = {layer for name, layer in model.named_modules() if name.endswith(("vertical", "link"))}
    assert made == {layer: 12 if layer in rows else 24 for layer in made}


@both
def test_samples_follow_the_distribution(kind, float64, generator, all_images):
    """Pearson's χ² of 20 000 samples over all 64 images: mean 63, standard deviation √126."""
    shape, n = (3, 1, 2), 20_000
    model = kind(shape, 2, 12, 1, generator=generator)
    expected = model.log_prob(all_images(shape, 2)).exp() * n
    code = model.sample(n, generator=generator).flatten(1) @ (2 ** torch.arange(5, -1, -1))
    observed = torch.bincount(code, minlength=64)
    assert ((observed - expected) ** 2 / expected).sum() < 63 + 4 * 126**0.5


@both
def test_dropout_is_off_in_samples_and_on_in_training(kind, generator):
    model = kind((1, 4, 4), 3, 12, 2, dropout=0.5, generator=generator)
    x = torch.randint(3, (4, 1, 4, 4), generator=generator)
    with torch.random.fork_rng([]):
        assert not torch.equal(model.logits(x), model.logits(x))
    first, again = (model.sample(20, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert model.training


@both
def test_the_first_weights_come_from_the_generator(kind):
    state = torch.get_rng_state()
    first, again = (
        kind((1, 3, 3), 3, classes=2, generator=torch.Generator().manual_seed(2)) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@both
def test_the_state_is_the_whole_model(kind, generator):
    source, target = (
        kind((3, 3, 3), 4, 6, 2, classes=2, cosines=2, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 2)
    )
    target.load_state_dict(source.state_dict())
    x, y = torch.randint(4, (5, 3, 3, 3), generator=generator), labels(source, 5, generator)
    noise = source.noise(5, generator)
    assert torch.equal(source.logits(x, y), target.logits(x, y))
    assert torch.equal(source.from_noise(noise, y), target.from_noise(noise, y))
    assert torch.equal(source.order, orders.raster((3, 3, 3)))


@both
def test_wrong_labels_are_refused_in_words(kind, generator):
    model, plain = kind((1, 2, 2), 3, 6, 1, classes=3), kind((1, 2, 2), 3, 6, 1)
    x = torch.zeros(2, 1, 2, 2, dtype=torch.int64)
    for y, words in (
        (None, "class-conditional: pass labels y"),
        (torch.tensor([0.0, 1.0]), r"torch.float32 \[2\], expected torch.int64 \[2\]"),
        (torch.tensor([0]), r"torch.int64 \[1\], expected torch.int64 \[2\]"),
        (torch.tensor([0, 3]), "from 0 to 3, expected 0 to 2"),
        (torch.tensor([-1, 0]), "from -1 to 0, expected 0 to 2"),
    ):
        with pytest.raises(UsageError, match=words):
            model.check_labels(y, 2)  # called directly, since the tests' type checks are stricter
    for y in (None, torch.tensor([0, 3])):
        with pytest.raises(UsageError, match="labels y"):
            model.log_prob(x, y)
        with pytest.raises(UsageError, match="labels y"):
            model.sample(2, y, generator=generator)
    assert (model.classes, plain.classes) == (3, None)
    with pytest.raises(UsageError, match="not class-conditional"):
        plain.log_prob(x, torch.tensor([0, 1]))
    with pytest.raises(UsageError, match="not class-conditional"):
        plain.sample(2, torch.tensor([0, 1]), generator=generator)
    with pytest.raises(UsageError, match="classes is 0, expected at least 1"):
        kind((1, 2, 2), 3, classes=0)


@both
def test_labels_change_what_is_predicted(kind, generator):
    model = kind((1, 3, 3), 3, 6, 1, classes=2, generator=generator)
    x = torch.randint(3, (4, 1, 3, 3), generator=generator)
    one, other = (model.logits(x, torch.full((4,), label)) for label in (0, 1))
    assert (one != other).flatten(1).any(1).all()


def labels(model, n, generator):
    return torch.randint(model.classes, (n,), generator=generator)
