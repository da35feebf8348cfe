"""Models of every family: found by what they define, asked all they can be asked, refused in sentences."""

import pytest
import torch
from torch import nn

from dulcourse import contract
from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.autoregressive.histogram import Histogram
from dulcourse.errors import UsageError
from dulcourse.flows.base import Flow, Transform
from dulcourse.latent.base import LatentModel

SHAPE = (1, 2, 2)
EXAMPLE = torch.arange(12).reshape(3, *SHAPE) % 3
LABELS = torch.tensor([0, 1, 1])


class Conditional(AutoregressiveModel):
    """Logits that depend on the label alone."""

    def __init__(self, classes=2):
        super().__init__(SHAPE, 3)
        self.classes = classes
        self.table = nn.Parameter(torch.arange(6.0).reshape(2, 3))

    def logits(self, x, y=None):
        return self.table[y].view(-1, 3, 1, 1, 1).expand(-1, 3, *SHAPE)


class Scale(Transform):
    """z = x / s."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return x * torch.exp(-self.log_scale), -4 * self.log_scale.expand(len(x))

    def inverse(self, z):
        return z * torch.exp(self.log_scale), 4 * self.log_scale.expand(len(z))


class Coder(LatentModel):
    def __init__(self, latents=2):
        super().__init__(SHAPE, 3, latents)
        self.to_z, self.to_x = nn.Linear(4, 2 * latents), nn.Linear(latents, 12)

    def encode(self, x):
        return self.to_z(x.flatten(1).float()).chunk(2, dim=1)

    def decode(self, z):
        return self.to_x(z).view(-1, 3, *SHAPE)


def flow() -> Flow:
    return Flow(Scale(), SHAPE, 3)


FAMILIES = {
    "autoregressive": (lambda: Histogram(SHAPE, 3), ["logits", "order", "rank"]),
    "flow": (flow, ["z", "log_det", "x of inverse"]),
    "latent": (Coder, ["mean", "log_std", "logits of decode"]),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_known_by_what_it_defines(family):
    build, names = FAMILIES[family]
    model = build()
    assert contract.family_of(model) == family
    assert contract.check("m", model, EXAMPLE) == family
    answers = contract.answers(model, EXAMPLE)
    assert list(answers) == names
    assert not any(answer.requires_grad for answer in answers.values())


def test_the_base_class_does_not_matter_and_helpers_do_not_mislead():
    class Own(nn.Module):
        """A flow with a helper called logits and a method called encode."""

        shape, levels = SHAPE, 3

        def forward(self, x):
            return x.flatten(1), x.new_zeros(len(x))

        def inverse(self, z):
            return z.unflatten(1, SHAPE), z.new_zeros(len(z))

        def logits(self, p):
            return p.log()

        encode = logits

    assert contract.check("m", Own(), EXAMPLE) == "flow"


def test_answers_are_those_of_the_model():
    model = Coder()
    mean, log_std = model.encode(EXAMPLE)
    answers = contract.answers(model, EXAMPLE)
    assert torch.equal(answers["mean"], mean)
    assert torch.equal(answers["log_std"], log_std)
    assert torch.equal(answers["logits of decode"], model.decode(mean))
    answers = contract.answers(flow(), EXAMPLE)
    assert torch.allclose(answers["x of inverse"], EXAMPLE + 0.5)
    assert torch.allclose(answers["z"], (EXAMPLE.flatten(1) + 0.5) * 2.718281828**-0.5)


def test_labels_reach_a_conditional_model():
    model = Conditional()
    assert contract.check("m", model, EXAMPLE, LABELS) == "autoregressive"
    assert torch.equal(contract.answers(model, EXAMPLE, LABELS)["logits"][:, :, 0, 0, 0], model.table[LABELS])


def with_attribute(build, name, value):
    model = build()
    setattr(model, name, value)
    return model


@pytest.mark.parametrize(
    ("model", "labels", "words"),
    [
        (nn.Linear(1, 1), None, r"'m' cannot be handed in: this is a Linear; expected a torch module with"),
        ("text", None, "this is a str"),
        (Flow(Scale(), SHAPE), None, "has levels None"),
        (Flow(Scale(), (2,), 3), None, r"has shape \(2,\)"),
        (with_attribute(Coder, "latents", 2.0), None, "has latents 2.0; expected an integer"),
        (Conditional(), None, "is conditional on 2 classes: pass the labels of the example"),
        (Conditional(), LABELS.float(), "labels are torch.float32"),
        (Conditional(), LABELS[:2], r"labels are torch.int64 \(2,\)"),
        (Conditional(), LABELS + 1, "from 0 to 1"),
        (Coder(), LABELS, "has no classes, so it takes no labels"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(model, labels, words):
    with pytest.raises(UsageError, match=words):
        contract.check("m", model, EXAMPLE, labels)


def answering(build, **methods):
    model = build()
    for name, method in methods.items():
        setattr(model, name, method)
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            answering(Coder, encode=lambda x: torch.zeros(3, 4)),
            r"encode\(x\) of 'm' returns a Tensor; expected",
        ),
        (answering(Coder, encode=lambda x: (torch.zeros(3, 3),) * 2), r"gives mean of shape \(3, 3\)"),
        (answering(Coder, decode=lambda z: torch.zeros(3, 12)), r"logits of decode of shape \(3, 12\)"),
        (answering(Coder, decode=lambda z: torch.zeros(3, 3, *SHAPE) / 0), "not finite"),
        (answering(flow, forward=lambda x: x.flatten(1)), r"forward\(x\) of 'm' returns a Tensor"),
        (answering(flow, forward=lambda x: (x, torch.zeros(3))), r"gives z of shape \(3, 1, 2, 2\)"),
        (answering(flow, forward=lambda x: (x.flatten(1), x)), r"gives log_det of shape \(3, 1, 2, 2\)"),
        (answering(flow, inverse=lambda z: (z, torch.zeros(3))), r"gives x of inverse of shape \(3, 4\)"),
    ],
)
def test_an_answer_of_another_shape_is_refused_in_a_sentence(model, words):
    with pytest.raises(UsageError, match=words):
        contract.answers(model, EXAMPLE, name="m")
