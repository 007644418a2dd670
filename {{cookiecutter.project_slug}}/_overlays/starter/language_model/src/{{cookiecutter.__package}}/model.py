"""The model: tokens int64 [B, T] to logits float [B, T, vocab_size]. Yours to change."""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .config import Model


class GPT(nn.Module):
    """A small decoder-only transformer with the layout of GPT-2: Radford et al., 2019."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.context = config.context
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if name.endswith("weight") and parameter.ndim == 2:
                # What adds to the residual stream is smaller, by how much adds to it (section 2.3).
                residual = name.endswith(("project.weight", "shrink.weight"))
                scale = sqrt(2 * config.num_layers) if residual else 1.0
                nn.init.normal_(parameter, std=0.02 / scale)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        features = self.dropout(self.tokens(tokens) + self.positions(positions))
        for block in self.blocks:
            features = block(features)
        return self.head(self.norm(features))


class Block(nn.Module):
    """Attention, then a layer of its own for each token; both add to their input."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.norm = nn.LayerNorm(config.width)
        self.grow = nn.Linear(config.width, 4 * config.width)
        self.shrink = nn.Linear(4 * config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor) -> Tensor:
        features = features + self.attention(self.attention_norm(features))
        return features + self.dropout(self.shrink(F.gelu(self.grow(self.norm(features)))))


class Attention(nn.Module):
    """Causal attention with several heads: [B, T, width] to the same."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.inputs = nn.Linear(config.width, 3 * config.width)
        self.project = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor) -> Tensor:
        batch, length, width = features.shape
        parts = self.inputs(features).view(batch, length, 3, self.num_heads, -1)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        # The fused kernels have backward passes on CUDA whose bits change from run to run.
        with sdpa_kernel(SDPBackend.MATH):
            mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return self.dropout(self.project(mixed.transpose(1, 2).reshape(batch, length, width)))


def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean cross-entropy, in nats a token, of logits [B, T, V] for tokens int64 [B, T]."""
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())


@torch.no_grad()
def generate(model: GPT, prompt: Tensor, num_tokens: int, temperature: float) -> Tensor:
    """Continue a prompt int64 [T] by `num_tokens`, drawn from torch's global generator."""
    training = model.training
    model.eval()
    tokens = prompt
    for _ in range(num_tokens):
        logits = model(tokens[None, -model.context :])[0, -1].float().cpu()
        drawn = torch.multinomial(F.softmax(logits / temperature, dim=0), 1)
        tokens = torch.cat([tokens, drawn.to(tokens.device)])
    model.train(training)
    return tokens
