"""Answers are claims: what is wrong with one is said in words, wherever the respondent is."""

import contextlib
import socket
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dulcourse import handin
from dulcourse.autoregressive.histogram import Histogram
from dulcourse.flows.base import Flow, Transform
from dulcourse.latent.base import LatentModel
from dulcourse.referee import wire
from dulcourse.referee.respondent import LocalRespondent, Malformed, Spec, ask
from dulcourse.referee.serve import serve

SHAPE = (1, 2, 2)


class Saying:
    def __init__(self, **answer):
        self.answer = answer

    def call(self, name, arrays):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, r"answered with \[\]; expected \['a'\]"),
        ({"a": np.zeros((2, 3)), "b": np.zeros(1)}, "answered with"),
        ({"a": np.zeros((3, 2))}, r"shape \[3, 2\]; expected \[2, any\]"),
        ({"a": np.zeros(2)}, r"shape \[2\]"),
        ({"a": np.zeros((2, 3), np.int64)}, "as int64; expected real numbers"),
        ({"a": np.zeros((2, 3), complex)}, "as complex128"),
        ({"a": np.full((2, 3), np.nan)}, "not finite"),
        ({"a": np.array([["x", "y", "z"]] * 2)}, "expected real numbers"),
    ],
)
def test_an_answer_of_another_kind_is_malformed(answer, words):
    with pytest.raises(Malformed, match=words):
        ask(Saying(**answer), "f", {}, {"a": Spec((2, None))})


def test_an_answer_as_expected_is_returned():
    answer = ask(
        Saying(a=np.zeros((2, 7), np.float16), n=np.array(True)),
        "f",
        {},
        {"a": Spec((2, None)), "n": Spec((), "i")},
    )
    assert set(answer) == {"a", "n"}
    assert ask(Saying(a=np.array([np.inf])), "f", {}, {"a": Spec((1,), finite=False)})["a"] == np.inf


@pytest.fixture
def histogram() -> Histogram:
    x = torch.arange(60).reshape(15, *SHAPE) % 3
    return Histogram.fit(x, 3)


def respondent(model: torch.nn.Module | None = None, **functions) -> LocalRespondent:
    history = SimpleNamespace(step=[10, 20], train=[1.5, 1.2], validation=[1.6, 1.4])
    entry = SimpleNamespace(model=model, claim=1.25, history=history)
    return LocalRespondent({} if model is None else {"m": entry}, functions)


def test_a_model_answers_every_question(histogram):
    party, x = respondent(histogram), np.arange(20).reshape(5, *SHAPE) % 3
    logits = party.call("m.logits", {"x": x})["logits"]
    assert logits.shape == (5, 3, *SHAPE)
    position = np.array([0, 3, 1, 2, 0])
    rows = party.call("m.conditional", {"x": x, "position": position})["log_p"]
    assert np.array_equal(rows, logits.reshape(5, 3, 4)[np.arange(5), :, position])
    nats = party.call("m.log_prob", {"x": x})["log_prob"]
    assert np.allclose(nats, histogram.log_prob(torch.from_numpy(x)).detach())
    sample = party.call("m.sample", {"n": np.array(6), "seed": np.array(2**61)})["x"]
    assert sample.shape == (6, *SHAPE)
    assert party.call("m.claim", {})["bits_per_dim"] == 1.25
    assert party.call("m.history", {})["validation"].tolist() == [1.6, 1.4]


class Curved(Transform):
    """z_i = x_i + Σ_{j<i} sin(x_j): a triangular Jacobian with ones on its diagonal."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4, 4).tril(-1))

    def forward(self, x):
        y = x.flatten(1)
        return (y + torch.sin(y) @ self.weight.T).view_as(x), 0 * y.sum(1)

    def inverse(self, z):
        y = z.flatten(1)
        x = torch.zeros_like(y)
        for i in range(4):
            x[:, i] = y[:, i] - (torch.sin(x) @ self.weight.T)[:, i]
        return x.view_as(z), 0 * y.sum(1)


class Small(LatentModel):
    """`single` code, as many write it, cannot meet weights in double precision."""

    def __init__(self, single=False):
        super().__init__(SHAPE, 3, 2)
        self.single = single
        self.weight = torch.nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))

    def encode(self, x):
        x = x.flatten(1)
        return ((x.float() if self.single else x.to(self.weight)) @ self.weight).chunk(2, dim=1)

    def decode(self, z):
        return (z @ self.weight[:2]).view(-1, 1, *SHAPE) * torch.arange(3).view(1, 3, 1, 1, 1)


def test_a_flow_answers_in_double_precision_with_its_jacobian():
    model = Flow(Curved(), SHAPE, 3).train()
    party, x = respondent(model), np.random.default_rng(0).random((5, *SHAPE)) * 3
    answer = party.call("m.forward", {"x": x})
    assert {key: a.dtype for key, a in answer.items()} == dict.fromkeys(
        ("z", "jacobian", "log_det"), np.float64
    )
    expected = np.eye(4) + np.tril(np.ones((4, 4)), -1) * np.cos(x.reshape(5, 1, 4))
    assert np.allclose(answer["jacobian"], expected, atol=1e-12)
    assert np.allclose(party.call("m.inverse", {"z": answer["z"]})["x"], x, atol=1e-12)
    nats = party.call("m.log_prob", {"x": x})["log_prob"]
    assert np.allclose(nats, -0.5 * (answer["z"] ** 2 + np.log(2 * np.pi)).sum(1), atol=1e-12)
    # The model itself is left as it was.
    assert model.training
    assert model.transform.weight.dtype == torch.float32
    assert model.transform.weight.grad is None


@pytest.mark.parametrize(("single", "exact"), [(False, 1e-12), (True, 1e-5)])
def test_a_latent_variable_model_answers_in_the_best_precision_it_can(single, exact):
    model = Small(single)
    party, x = respondent(model), np.arange(20).reshape(5, *SHAPE) % 3
    answer, weight = party.call("m.encode", {"x": x}), model.weight.detach().double().numpy()
    told = np.concatenate([answer["mean"], answer["log_std"]], axis=1)
    assert told.dtype == np.float64
    assert np.abs(told - x.reshape(5, 4) @ weight).max() < exact
    z = np.random.default_rng(0).normal(size=(5, 2))
    logits = party.call("m.decode", {"z": z})["logits"]
    assert logits.shape == (5, 3, *SHAPE)
    assert np.abs(logits[:, 2].reshape(5, 4) - 2 * z @ weight[:2]).max() < exact
    noise = torch.zeros(5, 2)
    nats = party.call("m.log_prob", {"x": x, "noise": np.zeros((5, 2))})["log_prob"]
    assert np.allclose(nats, model.log_weight(torch.from_numpy(x), noise).detach(), atol=1e-3)


def test_what_a_two_party_question_breaks_on_is_said_in_words():
    class Constant(Curved):
        def forward(self, x):
            return torch.zeros(len(x), 4), torch.zeros(len(x))

    party, x = respondent(Flow(Constant(), SHAPE, 3)), np.zeros((2, *SHAPE))
    with pytest.raises(Malformed, match=r"'m.forward' raised RuntimeError"):
        party.call("m.forward", {"x": x})
    with pytest.raises(Malformed, match=r"'m.encode' raised AttributeError"):
        party.call("m.encode", {"x": x.astype(int)})
    blank = LatentModel(SHAPE, 3, 2)
    with pytest.raises(Malformed, match="not solved yet"):
        respondent(blank).call("m.encode", {"x": x.astype(int)})


def test_a_conditional_model_samples_the_labels_it_is_given(histogram):
    class Conditional(torch.nn.Module):
        def sample(self, n, y, *, generator):
            return y.view(n, 1, 1, 1).expand(n, *SHAPE)

    question = {"n": np.array(3), "seed": np.array(1), "y": np.array([2, 0, 1])}
    assert respondent(Conditional()).call("m.sample", question)["x"][:, 0, 0, 0].tolist() == [2, 0, 1]
    with pytest.raises(Malformed, match="raised"):
        respondent(histogram).call("m.sample", question)


def test_many_images_are_answered_in_pieces_that_fit(histogram, monkeypatch):
    monkeypatch.setattr("dulcourse.referee.respondent.CHUNK", 24)  # two images of 12 logits
    monkeypatch.setattr("dulcourse.referee.respondent.FEW", 1)
    x = np.arange(28).reshape(7, *SHAPE) % 3
    assert respondent(histogram).call("m.logits", {"x": x})["logits"].shape == (7, 3, *SHAPE)
    rows = respondent(histogram).call("m.conditional", {"x": x, "position": np.arange(7) % 4})
    assert rows["log_p"].shape == (7, 3)
    whole = respondent(Small()).call("m.encode", {"x": x})["mean"]
    monkeypatch.setattr("dulcourse.referee.respondent.IMAGES", 3)
    monkeypatch.setattr("dulcourse.referee.respondent.NUMBERS", 1)
    asked = []
    monkeypatch.setattr(
        Small, "encode", lambda model, x, encode=Small.encode: asked.append(len(x)) or encode(model, x)
    )
    assert np.array_equal(respondent(Small()).call("m.encode", {"x": x})["mean"], whole)
    assert asked == [3, 3, 1]


@pytest.mark.parametrize("name", ["m.weights", "n.logits", "logits", "", "m.", ".logits", "function."])
def test_questions_that_nobody_can_answer_are_malformed(histogram, name):
    with pytest.raises(Malformed):
        respondent(histogram).call(name, {"x": np.zeros((1, *SHAPE), np.int64)})


def test_functions_get_tensors_and_numbers_and_return_anything_numeric():
    seen = []

    def f(x, levels, strict):
        seen.extend([type(x), levels, strict])
        return x.double() / levels, [1, 2], torch.tensor(3, dtype=torch.bfloat16), True

    arguments = {"x": np.arange(3), "levels": np.array(4), "strict": np.array(True)}
    answer = respondent(f=f).call("function.f", arguments)
    assert seen == [torch.Tensor, 4, True]
    assert answer["result0"].tolist() == [0, 0.25, 0.5]
    assert answer["result1"].tolist() == [1, 2]
    assert answer["result2"].dtype == np.float32
    assert answer["result3"].dtype == bool
    assert respondent(f=lambda: 0.5).call("function.f", {})["result"] == 0.5


def raises(error):
    raise error


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda: "text", "a str was returned"),
        (lambda: None, "a NoneType was returned"),
        (lambda: [object()], "a list was returned"),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: raises(SystemExit(3)), "SystemExit"),
        (lambda: raises(NotImplementedError()), "not solved yet"),
        (lambda: raises(RecursionError("deep")), "RecursionError: deep"),
        (lambda wrong: 1, "TypeError"),
        (7, "defines no function 'f'"),
    ],
)
def test_whatever_a_students_function_does_is_said_in_words(function, words):
    with pytest.raises(Malformed, match=words):
        respondent(f=function).call("function.f", {})


@contextlib.contextmanager
def served(tmp_path, functions):
    """The other end of `serve`, which runs in a thread here and in a kernel's main thread behind the wall."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve, args=(path, functions), daemon=True)
        thread.start()
        stream, _ = listener.accept()
        with stream:
            yield stream
        thread.join(10)
        assert not thread.is_alive()


def put(stream, header, **arrays):
    wire.write_frame(stream, wire.encode(header, arrays))
    return wire.decode(wire.read_frame(stream, deadline=None))


def test_serve_answers_what_a_local_respondent_answers(tmp_path, histogram, monkeypatch):
    monkeypatch.setattr(handin, "registry", {"m": handin.HandedIn(histogram, 1.5)})
    x = np.zeros((2, *SHAPE), np.int64)
    with served(tmp_path, {"f": lambda a: a + 1, "bad": lambda: 1 / 0}) as stream:
        header, arrays = put(stream, {"call": "m.logits", "id": 7}, x=x)
        assert header == {"ok": True, "id": 7}
        assert np.array_equal(arrays["logits"], respondent(histogram).call("m.logits", {"x": x})["logits"])
        assert put(stream, {"call": "function.f"}, a=np.arange(2))[1]["result"].tolist() == [1, 2]
        header, arrays = put(stream, {"call": "function.bad"})
        assert header == {"ok": False, "error": "'function.bad' raised ZeroDivisionError: division by zero"}
        assert arrays == {}
        assert put(stream, {})[0]["ok"] is False


def test_serve_ends_when_told_to(tmp_path):
    with served(tmp_path, {}) as stream:
        wire.write_frame(stream, wire.encode({"stop": True}, {}))
        with pytest.raises(wire.WireClosed):
            wire.read_frame(stream)
