"""Training: the best weights are kept, and a killed run ends where the undisturbed one does."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from dulcourse.autoregressive.histogram import Histogram
from dulcourse.autoregressive.made import MADE
from dulcourse.data.dataset import Dataset
from dulcourse.errors import UsageError
from dulcourse.likelihood import bits_per_dim
from dulcourse.training import History, constant, cosine, evaluate, fit

SHAPE, LEVELS = (1, 2, 3), 3


def data(split: str, n: int = 100) -> Dataset:
    """Symbols that repeat their neighbour half of the time, so that there is something to learn."""
    g = torch.Generator().manual_seed(len(split))
    x = torch.randint(LEVELS, (n, *SHAPE), generator=g)
    x[..., 1:] = torch.where(torch.rand(x[..., 1:].shape, generator=g) < 0.5, x[..., :-1], x[..., 1:])
    return Dataset("toy", split, x, x[:, 0, 0, 0], LEVELS)


def network(seed: int = 0) -> MADE:
    """With dropout, so that a resumed run must restore that randomness too."""
    return MADE(SHAPE, LEVELS, hidden=(20,), dropout=0.2, generator=torch.Generator().manual_seed(seed))


def train(model: nn.Module, steps: int = 60, seed: int = 1, **options) -> History:
    options = {"batch_size": 16, "evaluate_every": 20, "lr": 1e-2, "progress": False} | options
    generator = torch.Generator().manual_seed(seed)
    return fit(model, data("train"), data("validation"), generator=generator, steps=steps, **options)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def without_time(history: History) -> tuple:
    return history.step, history.train, history.validation


def test_training_finds_the_maximum_likelihood():
    """Counting solves the histogram exactly; the loop must come near from above."""
    model, best = Histogram(SHAPE, LEVELS), Histogram.fit(data("train").x, LEVELS, smoothing=0.0)
    fit(
        model, data("train"), data("train"), generator=torch.Generator(), steps=100, lr=0.1, batch_size=100,
        progress=False,
    )  # fmt: skip
    excess = evaluate(model, data("train")) - evaluate(best, data("train"))
    assert -1e-6 < excess < 1e-3  # float32 rounds


def test_the_history_is_in_bits_per_dim():
    model = Histogram(SHAPE, LEVELS)
    history = train(model, steps=1, lr=1e-12)
    assert history.step == [1]
    assert history.train == pytest.approx([math.log2(LEVELS)])
    assert history.validation == pytest.approx([math.log2(LEVELS)])


def test_the_history_ends_with_the_last_step_and_learns():
    history = train(network(), steps=50)
    assert history.step == [20, 40, 50]
    assert history.validation[-1] < math.log2(LEVELS)
    assert history.seconds > 0


def test_the_best_weights_on_validation_are_restored():
    """With an absurd rate the loss goes up again; the model must be as good as its best evaluation."""
    model = network()
    history = train(model, steps=200, lr=0.3, evaluate_every=5)
    assert history.best < len(history.step) - 1
    assert evaluate(model, data("validation")) == min(history.validation) == history.validation[history.best]


def test_patience_counts_evaluations_without_a_new_best():
    history = train(network(), steps=2000, lr=0.3, evaluate_every=5, patience=4)
    assert len(history.step) - 1 - history.best == 4
    assert history.step[-1] < 2000


def test_equal_seeds_give_equal_runs_and_others_do_not():
    first, again, other = network(), network(), network()
    assert without_time(train(first)) == without_time(train(again))
    assert same_weights(first, again)
    train(other, seed=2)
    assert not same_weights(first, other)


def test_torch_s_own_generator_is_neither_used_nor_moved():
    first, again = network(), network()
    before = torch.get_rng_state()
    train(first)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng([]):
        torch.rand(17)
        train(again)
    assert same_weights(first, again)


def test_one_number_is_drawn_from_the_generator_even_on_resume(tmp_path):
    states = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(1)
        fit(
            network(), data("train"), data("validation"), generator=generator, steps=20,
            checkpoint=tmp_path / "run.safetensors", progress=False,
        )  # fmt: skip
        states.append(generator.get_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "clip": 0.5}])
def test_a_run_in_two_parts_is_the_run_in_one(tmp_path, options):
    whole, parts = network(), network()
    history = train(whole, steps=80, **options)
    train(parts, steps=40, checkpoint=tmp_path / "run.safetensors", **options)
    fresh = network(seed=9)  # the first weights come from the checkpoint
    resumed = train(fresh, steps=80, seed=5, checkpoint=tmp_path / "run.safetensors", **options)
    assert without_time(resumed) == without_time(history)
    assert same_weights(whole, fresh)


SCRIPT = """
import sys, torch
sys.path[:0] = sys.argv[2:]
import conftest  # the same types of numbers and threads as in the tests
from test_training import network, train
train(network(), steps=4000, checkpoint=sys.argv[1])
"""


def kill_when(process: subprocess.Popen, path: Path, writes: int) -> None:
    """SIGKILL, once the checkpoint has been written so many times."""
    seen: set[int] = set()
    while process.poll() is None and len(seen) < writes:
        if path.exists():
            seen.add(path.stat().st_mtime_ns)
        time.sleep(0.002)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_run_ends_where_the_undisturbed_one_does(tmp_path):
    path, here = tmp_path / "run.safetensors", Path(__file__).parent
    arguments = [sys.executable, "-c", SCRIPT, str(path), str(here), str(here.parent)]
    process = subprocess.Popen(arguments, start_new_session=True)
    kill_when(process, path, writes=3)
    with safe_open(path, framework="pt") as file:  # whole, whenever the kill came
        steps = json.loads(file.metadata()["dulcourse.training"])["step"] + 30
    resumed, whole = network(), network()
    history = train(resumed, steps=steps, checkpoint=path)
    assert without_time(history) == without_time(train(whole, steps=steps))
    assert same_weights(resumed, whole)


def test_a_finished_run_is_not_repeated(tmp_path):
    first, again = network(), network(seed=9)
    history = train(first, checkpoint=tmp_path / "run.safetensors")

    def untouchable(model, x, y, generator):
        raise AssertionError("the run was repeated")

    untouchable.__qualname__ = "negative_log_prob"
    assert train(again, checkpoint=tmp_path / "run.safetensors", loss=untouchable) == history
    assert same_weights(first, again)


def test_resume_false_starts_anew(tmp_path):
    path = tmp_path / "run.safetensors"
    train(network(), steps=20, checkpoint=path)
    history = train(network(), steps=40, seed=3, checkpoint=path, resume=False)
    assert without_time(history) == without_time(train(network(), steps=40, seed=3))


def test_nothing_but_the_checkpoint_is_left_behind(tmp_path):
    train(network(), checkpoint=tmp_path / "folder" / "run.safetensors")
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["run.safetensors"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 2e-2}, "settings .*expected .*0.02"),
        ({"batch_size": 8}, "settings"),
        ({"weight_decay": 0.5}, "settings"),
        ({"evaluate_every": 10}, "settings"),
        ({"schedule": cosine}, "settings"),
        ({"loss": lambda model, x, y, generator: -model.log_prob(x)}, "settings"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, change, words):
    train(network(), checkpoint=tmp_path / "run.safetensors")
    with pytest.raises(UsageError, match=rf"is of another run: {words}.*resume=False"):
        train(network(), checkpoint=tmp_path / "run.safetensors", **change)


def test_a_checkpoint_of_another_model_or_data_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    train(network(), checkpoint=path)
    with pytest.raises(UsageError, match=r"another run: model MADE .*expected Histogram"):
        train(Histogram(SHAPE, LEVELS), checkpoint=path)
    with pytest.raises(
        UsageError, match=r"another run: training data \[100, 1, 2, 3\].*expected \[50, 1, 2, 3\]"
    ):
        fit(
            network(), data("train", 50), data("validation"), generator=torch.Generator(), steps=1,
            batch_size=16, evaluate_every=20, lr=1e-2, checkpoint=path, progress=False,
        )  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_checkpoint_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "run.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"is not a checkpoint of `fit`.*resume=False"):
        train(network(), checkpoint=path)
    assert path.read_bytes() == content


def test_time_runs_out_by_the_given_clock():
    ticks = count()
    history = train(network(), steps=1000, max_seconds=30, clock=lambda: float(next(ticks)))
    assert history.seconds == 30
    assert 20 <= history.step[-1] <= 30  # a tick for each step and one for each evaluation


def test_the_loss_gets_labels_and_noise_of_its_own():
    seen = []

    def loss(model, x, y, generator):
        seen.append((torch.equal(y, x[:, 0, 0, 0]), torch.rand((), generator=generator).item()))
        return -model.log_prob(x)

    history = train(network(), steps=40, loss=loss)
    assert all(labels for labels, _ in seen)
    assert len({noise for _, noise in seen}) == len(seen) - 1  # the two evaluations share their noise
    assert len(history.step) == 2


def test_the_learning_rate_follows_the_schedule():
    """At a rate of zero nothing moves; the cosine falls from 1 to 0."""
    still, start = network(), network()
    train(still, schedule=lambda progress: 0.0)
    assert same_weights(still, start)
    assert [cosine(p) for p in (0.0, 0.5, 1.0, 1.5)] == pytest.approx([1, 0.5, 0, 0])
    assert constant(0.7) == 1


def test_each_epoch_shows_every_example_once():
    seen = []

    def loss(model, x, y, generator):
        if model.training:
            seen.append(x)
        return -model.log_prob(x)

    fit(
        network(), data("train", 48), data("validation"), generator=torch.Generator(), steps=6, batch_size=16,
        loss=loss, evaluate_every=2, progress=False,
    )  # fmt: skip
    everything = sorted(data("train", 48).x.flatten(1).tolist())
    first, second = torch.cat(seen[:3]).flatten(1).tolist(), torch.cat(seen[3:]).flatten(1).tolist()
    assert sorted(first) == sorted(second) == everything
    assert first != second


def test_a_batch_larger_than_the_data_is_the_data():
    assert train(network(), steps=3, batch_size=1000).step == [3]


def test_evaluation_is_the_mean_over_the_data_and_leaves_the_model_training():
    model = network()
    expected = bits_per_dim(model.eval().log_prob(data("train").x).mean().item(), 6)
    model.train()
    assert evaluate(model, data("train"), batch_size=7) == pytest.approx(expected)
    assert model.training


def test_progress_shows_rate_time_left_and_bits(capsys):
    train(network(), steps=40, progress=True)
    shown = capsys.readouterr().err
    assert "step/s" in shown
    assert "bits/dim" in shown
    assert "40/40" in shown
    train(network(), steps=40)
    assert capsys.readouterr().err == ""


def test_a_loss_that_explodes_is_reported_not_recorded():
    def loss(model, x, y, generator):
        return -model.log_prob(x) * math.inf

    with pytest.raises(UsageError, match=r"not finite at step 20.*lower lr \(now 0.01\)"):
        train(network(), loss=loss)


@pytest.mark.parametrize("name", ["steps", "batch_size", "evaluate_every", "lr"])
def test_settings_must_be_positive(name):
    with pytest.raises(UsageError, match=f"{name} is 0, expected a number above 0"):
        train(network(), **{name: 0})


def test_empty_data_are_refused():
    with pytest.raises(UsageError, match="the validation set is empty"):
        fit(network(), data("train"), data("validation", 0), generator=torch.Generator(), steps=1)


def test_training_does_not_import_the_compiler():
    program = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_training import network, train\n"
        "train(network(), steps=2, clip=1.0)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
