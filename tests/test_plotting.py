"""Figures show the numbers they were given, look alike, and leave nothing behind."""

import io
from types import SimpleNamespace

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from matplotlib import pyplot
from matplotlib.image import imread

from dulcourse import plotting
from dulcourse.errors import UsageError

HISTORY = SimpleNamespace(step=[10, 20, 30], train=[3.0, 2.0, 1.0], validation=[3.1, 2.2, 2.6])
IMAGES = torch.arange(3 * 4 * 6).reshape(3, 1, 4, 6) % 4
DRAWN = {
    "show_images": lambda: plotting.show_images(IMAGES, 4, titles=["one", "two", "three"]),
    "curves": lambda: plotting.curves(HISTORY, {"histogram": 2.5}),
    "dependency": lambda: plotting.dependency(torch.ones(5, 5, dtype=torch.bool).tril(-1)),
    "distribution": lambda: plotting.distribution({"uniform": torch.zeros(4)}, torch.tensor([1, 2, 0, 3])),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_an_opaque_picture(name):
    pixels = imread(io.BytesIO(DRAWN[name]()._repr_png_()))
    assert min(pixels.shape[:2]) > 60
    assert pixels.shape[2] == 3 or (pixels[:, :, 3] == 1).all()
    assert (pixels[0, 0, :3] == 1).all()  # white, to the corner
    assert pixels.std() > 0.01


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_figure_is_the_same_bytes(name):
    assert DRAWN[name]()._repr_png_() == DRAWN[name]()._repr_png_()


def _settings() -> dict:
    return {name: value for name, value in matplotlib.rcParams.items() if name != "backend"}


@pytest.mark.parametrize("name", DRAWN)
def test_no_global_state_is_touched(name):
    before = _settings()
    DRAWN[name]()
    assert _settings() == before
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("name", ["curves", "dependency", "distribution"])
def test_axes_are_named(name):
    (axes,) = DRAWN[name]().axes
    assert axes.get_xlabel()
    assert axes.get_ylabel()


def test_style_is_a_context():
    before = _settings()
    with plotting.style():
        assert matplotlib.rcParams["savefig.facecolor"] == "white"
        assert not matplotlib.rcParams["savefig.transparent"]
    assert _settings() == before


@settings(max_examples=15)
@given(
    n=st.integers(1, 9),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    levels=st.integers(2, 256),
    columns=st.integers(1, 12),
)
def test_every_image_is_shown_as_it_is(n, channels, size, levels, columns):
    x = torch.randint(levels, (n, channels, *size), generator=torch.Generator().manual_seed(n))
    (axes,) = plotting.show_images(x, levels, columns).axes
    boxes, (canvas,) = _boxes(axes), axes.images
    assert len(boxes) == n
    for image, (left, right, top, bottom) in zip(x, boxes, strict=True):
        pixels = np.asarray(canvas.get_array())[top:bottom, left:right]
        value = np.rint(pixels * (levels - 1)).astype(int).transpose(2, 0, 1)
        expected = image.numpy() if channels == 3 else np.repeat(levels - 1 - image.numpy(), 3, axis=0)
        assert np.array_equal(value, expected)
    assert len({top for _, _, top, _ in boxes}) == -(-n // columns)
    assert not _overlap(boxes)


def _boxes(axes) -> list[tuple[int, int, int, int]]:
    """The frame around each image: left, right, top, bottom in pixels of the canvas, which they lie on."""
    (canvas,), (frames,) = axes.images, axes.collections
    high, wide = canvas.get_array().shape[:2]
    assert list(canvas.get_extent()) == [0, wide, high, 0]
    corners = [path.vertices for path in frames.get_paths()]
    boxes = [
        (*np.sort(c[:4, 0])[[0, -1]].astype(int), *np.sort(c[:4, 1])[[0, -1]].astype(int)) for c in corners
    ]
    assert all(0 <= left < right <= wide and 0 <= top < bottom <= high for left, right, top, bottom in boxes)
    return boxes


def _overlap(boxes) -> bool:
    return any(
        a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
        for i, a in enumerate(boxes)
        for b in boxes[:i]
    )


def test_titles_stand_above_their_images():
    (axes,) = DRAWN["show_images"]().axes
    assert [text.get_text() for text in axes.texts] == ["one", "two", "three"]
    for text, (left, right, top, _) in zip(axes.texts, _boxes(axes), strict=True):
        assert left < text.get_position()[0] < right
        assert 0 < text.get_position()[1] < top  # the vertical axis points down


def test_floats_are_shown_in_the_unit_interval():
    (axes,) = plotting.show_images(torch.full((1, 1, 2, 2), 0.25)).axes
    ((left, right, top, bottom),) = _boxes(axes)
    assert np.allclose(axes.images[0].get_array()[top:bottom, left:right], 0.75)


@pytest.mark.parametrize("shift", [0, 100])
def test_curves_are_the_history_and_mark_its_best(shift):
    history = SimpleNamespace(
        step=[s + shift for s in HISTORY.step], train=HISTORY.train, validation=HISTORY.validation
    )
    (axes,) = plotting.curves(history, {"histogram": 2.5, "uniform": 2.0}).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["training"].get_xydata().tolist() == list(
        map(list, zip(history.step, history.train, strict=True))
    )
    assert lines["validation"].get_ydata().tolist() == HISTORY.validation
    assert lines[f"best: 2.200 at step {20 + shift}"].get_xydata().tolist() == [[20 + shift, 2.2]]
    assert set(lines["histogram: 2.500"].get_ydata()) == {2.5}
    assert set(lines["uniform: 2.000"].get_ydata()) == {2.0}


def test_curves_survive_a_diverged_run():
    diverged = SimpleNamespace(step=[1, 2], train=[float("nan")] * 2, validation=[float("nan")] * 2)
    assert plotting.curves(diverged)._repr_png_().startswith(b"\x89PNG")


@settings(max_examples=15)
@given(hnp.arrays(bool, (6, 6)), st.permutations(range(6)))
def test_dependency_counts_leaks_and_blind_spots_in_generation_order(matrix, order):
    rank = {symbol: t for t, symbol in enumerate(order)}
    count = {"must not be seen": 0, "seen": 0, "missing: a blind spot": 0, "seen, but forbidden: a leak": 0}
    for i in range(6):
        for j in range(6):
            past, sees = rank[j] < rank[i], matrix[i, j]
            names = (
                ("seen", "missing: a blind spot")
                if past
                else ("seen, but forbidden: a leak", "must not be seen")
            )
            count[names[0] if sees else names[1]] += 1
    figure = plotting.dependency(torch.from_numpy(matrix), torch.tensor(order), "title")
    (axes,) = figure.axes
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == [f"{name} ({number})" for name, number in count.items()]
    kinds = np.asarray(axes.images[0].get_array())
    for i in range(6):
        for j in range(6):
            assert (kinds[rank[i], rank[j]] in (1, 3)) == matrix[i, j]
            assert (kinds[rank[i], rank[j]] in (1, 2)) == (rank[j] < rank[i])


def test_dependency_is_told_apart_in_grey():
    """The four kinds differ in luminance, so that no colour vision and no colour printer is needed."""
    (axes,) = DRAWN["dependency"]().axes
    colours = np.array([axes.images[0].cmap(kind)[:3] for kind in range(4)])
    grey = np.sort(colours @ [0.2126, 0.7152, 0.0722])
    assert np.diff(grey).min() > 0.07


@settings(max_examples=15)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=20).filter(sum))
def test_distribution_shows_frequencies_and_probabilities(counts):
    log_p = torch.randn(len(counts), generator=torch.Generator().manual_seed(0)).log_softmax(0)
    (axes,) = plotting.distribution({"model": log_p}, torch.tensor(counts)).axes
    bars, line = axes.patches
    assert bars.get_label() == f"data ({sum(counts)} draws)"
    assert bars.get_data().values == pytest.approx([count / sum(counts) for count in counts])
    assert line.get_label() == "model"
    assert line.get_data().values == pytest.approx(log_p.exp().numpy())
    assert line.get_data().edges.tolist() == [k - 0.5 for k in range(len(counts) + 1)]


WRONG = [
    (lambda: plotting.show_images(IMAGES, 3), ["0 to 3", "expected 0 to 2", "levels"]),
    (lambda: plotting.show_images(IMAGES), ["0 to 3", "expected 0 to 1"]),
    (lambda: plotting.show_images(IMAGES[:, [0, 0]], 4), ["[3, 2, 4, 6]", "1 or 3"]),
    (lambda: plotting.show_images(IMAGES[:0], 4), ["[0, 1, 4, 6]", "n ≥ 1"]),
    (lambda: plotting.show_images(IMAGES * torch.nan), ["nan", "expected 0 to 1"]),
    (lambda: plotting.show_images(IMAGES, 4, titles=["one"]), ["1 titles for 3 images"]),
    (lambda: plotting.show_images(IMAGES, 4, columns=0), ["columns is 0", "at least 1"]),
    (lambda: plotting.curves(SimpleNamespace(step=[], train=[], validation=[])), ["empty", "train"]),
    (lambda: plotting.distribution(), ["nothing to draw", "log_p, counts"]),
]


@pytest.mark.parametrize(("call", "words"), WRONG)
def test_errors_name_the_value_and_the_fix(call, words):
    with pytest.raises(UsageError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value
