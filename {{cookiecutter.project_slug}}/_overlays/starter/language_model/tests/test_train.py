"""Evaluation has no side effects; accumulation changes the memory and not the gradient."""

import pytest
import torch

from {{ cookiecutter.__package }}.config import Model
from {{ cookiecutter.__package }}.model import GPT, next_token_loss
from {{ cookiecutter.__package }}.train import evaluate

CPU = torch.device("cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT(Model(num_layers=1, width=8, context=6, vocab_size=11, dropout=0.5)).train()


@pytest.fixture
def tokens():
    return torch.randint(11, (50, 7), generator=torch.Generator().manual_seed(0))


def test_evaluation_leaves_no_trace(model, tokens):
    """Weights, the training mode and torch's generator stay as they were; dropout is off."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    first = evaluate(model, tokens, CPU)
    assert evaluate(model, tokens, CPU) == first
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert model.training


def test_evaluation_counts_every_sequence_once(model, tokens):
    """The last, smaller batch is weighted correctly: equal to a single batch, up to rounding."""
    whole = evaluate(model, tokens, CPU, batch_size=50)
    assert evaluate(model, tokens, CPU, batch_size=16) == pytest.approx(whole)


def test_the_gradient_in_parts_is_the_gradient(model, tokens):
    """As in the loop: each part's mean loss, divided by their number."""
    model.eval()
    gradients = []
    for count in (1, 5):
        model.zero_grad()
        for part in tokens.chunk(count):
            (next_token_loss(model(part[:, :-1]), part[:, 1:]) / count).backward()
        gradients.append(model.head.weight.grad.clone())
    assert torch.allclose(*gradients, atol=1e-6)
