"""The model sees no future, and the samples and rates are what they claim."""

import math

import pytest
import torch

from {{ cookiecutter.__package }}.config import Model, Sample, Training
from {{ cookiecutter.__package }}.generate import main, sample
from {{ cookiecutter.__package }}.model import GPT, generate, next_token_loss
from {{ cookiecutter.__package }}.optim import build_optimizer, learning_rate

SMALL = Model(num_layers=2, num_heads=2, width=8, context=6, vocab_size=11, dropout=0.5)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT(SMALL)


def test_tokens_in_logits_out(model):
    """int64 [B, T] becomes float32 [B, T, vocab_size], for any T up to the context."""
    for length in (1, 6):
        logits = model(torch.zeros(3, length, dtype=torch.int64))
        assert logits.shape == (3, length, 11)
        assert logits.dtype == torch.float32


def test_no_token_sees_a_later_one(model):
    """Changing the last token changes no prediction but its own."""
    model.eval()
    tokens = torch.arange(6)[None]
    other = tokens.clone()
    other[0, -1] = 10
    assert torch.equal(model(tokens)[:, :-1], model(other)[:, :-1])
    assert not torch.equal(model(tokens)[:, -1], model(other)[:, -1])


def test_an_untrained_model_knows_nothing(model):
    """Its loss is that of a guess among all tokens, ln 11, as near as small weights come."""
    tokens = torch.randint(11, (50, 7))
    loss = next_token_loss(model.eval()(tokens[:, :-1]), tokens[:, 1:])
    assert loss.item() == pytest.approx(math.log(11), abs=0.05)


def test_generation_is_a_function_of_the_seed(model):
    """The prompt comes first; the same seed continues it by the same tokens, dropout is off."""
    prompt = torch.tensor([3, 1])
    torch.manual_seed(5)
    first = generate(model, prompt, 20, 1.0)
    torch.manual_seed(5)
    assert torch.equal(generate(model, prompt, 20, 1.0), first)
    assert first[:2].tolist() == [3, 1]
    assert len(first) == 22
    assert model.training


def test_a_sample_is_text_if_the_tokens_are_bytes(model):
    """Bytes behind the prompt; of another vocabulary, the numbers of the tokens."""
    text = GPT(SMALL.model_copy(update={"vocab_size": 256}))
    assert sample(text, Sample(prompt="To be", num_tokens=4)).startswith(b"To be")
    numbers = sample(model, Sample(prompt="To be", num_tokens=4)).split()
    assert len(numbers) == 5
    assert all(0 <= int(number) < 11 for number in numbers)


@pytest.mark.parametrize("arguments", [["."], [".", "sample.num_tokens=-1"], ["gone"]])
def test_a_run_that_cannot_be_used_is_one_line(arguments, tmp_path, monkeypatch, capsys):
    """Exit code 2, and no traceback."""
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1


def test_only_matrices_decay(model):
    """Biases and the scales of the norms are left alone."""
    decaying, others = build_optimizer(model, Training()).param_groups
    assert all(parameter.ndim == 2 for parameter in decaying["params"])
    assert all(parameter.ndim == 1 for parameter in others["params"])
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    sizes = (len(decaying["params"]), len(others["params"]))
    assert sum(sizes) == len(list(model.parameters()))


def test_the_learning_rate_warms_up_then_falls_to_a_tenth():
    """Linear to the peak, then a cosine."""
    config = Training(learning_rate=1.0, warmup_steps=10, num_steps=100)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.001)
