"""AdamW takes the steps of torch's own, and imports no compiler."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from dulcourse.optimiser import AdamW


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_steps_are_those_of_torch_s_adamw(weight_decay):
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    adamw = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=weight_decay, fused=True)
    mine = AdamW(ours.parameters(), weight_decay)
    generator = torch.Generator().manual_seed(0)
    for step in range(5):
        x = torch.randn(8, 5, generator=generator)
        for model, optimiser in ((ours, mine), (theirs, adamw)):
            optimiser.zero_grad()
            model(x).square().sum().backward()
        if step % 2:
            ours.bias.grad = theirs.bias.grad = None  # no gradient, no step
        mine.step(1e-2)
        adamw.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


def test_a_step_goes_against_the_gradient_by_the_rate():
    """The first step of Adam is the rate times the sign of the gradient, whatever its size."""
    weight = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
    optimiser = AdamW([weight])
    (weight * torch.tensor([1e-3, -50.0])).sum().backward()
    optimiser.step(0.25)
    torch.testing.assert_close(
        weight.detach(), torch.tensor([0.75, 1.25], dtype=torch.float64), rtol=1e-5, atol=0
    )


def test_no_compiler_is_imported():
    program = (
        "import sys, torch; from dulcourse.optimiser import AdamW\n"
        "w = torch.ones(2, requires_grad=True); adam = AdamW([w])\n"
        "w.sum().backward(); adam.step(0.1); adam.zero_grad()\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
