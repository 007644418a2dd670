"""Generate text from the weights of a run. Yours to change.

python -m PACKAGE.generate RUN [--seed S] [sample.prompt=TEXT …]
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .config import Config, Sample
from .model import GPT, generate
from .repro import set_seed

BYTES = 256


def main(arguments: list[str] | None = None) -> int:
    """Print a text; return the exit code: 0, or 2 if the run cannot be used."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.generate")
    parser.add_argument("run", type=Path, help="the directory of a complete run")
    parser.add_argument("--seed", type=int, help="default: the run's own")
    parser.add_argument("overrides", nargs="*", metavar="sample.key=value")
    options = parser.parse_args(arguments)
    try:
        path = options.run / "config.yaml"
        config = Config.load(path, overrides=options.overrides, seed=options.seed)
        model = GPT(config.model)
        model.load_state_dict(load_file(options.run / "model.safetensors"))
        set_seed(config.seed)
    except (ValueError, OSError, RuntimeError, SafetensorError) as error:
        print(f"error: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        return 2
    sys.stdout.buffer.write(sample(model, config.sample) + b"\n")
    return 0


def sample(model: GPT, config: Sample) -> bytes:
    """A text that begins with the prompt, from torch's global generator.

    Tokens that are no bytes become numbers, after the first token of the vocabulary.
    """
    device = next(model.parameters()).device
    is_text = model.tokens.num_embeddings == BYTES
    prompt = list(config.prompt.encode()) if is_text else [0]
    tokens = generate(
        model, torch.tensor(prompt, device=device), config.num_tokens, config.temperature
    )
    return bytes(tokens.tolist()) if is_text else " ".join(map(str, tokens.tolist())).encode()


if __name__ == "__main__":
    sys.exit(main())
