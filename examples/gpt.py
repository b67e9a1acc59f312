"""A small GPT that writes English, letter by letter: what is behind a language model, in a hundred lines.

    python examples/gpt.py

It learns from the reference text that every Python has with it (what `help()` shows). You see the loss fall from 4.6
(every character equally likely) to about 1.2, then text in the style of a language reference that means nothing.
One to two minutes; `--out gpt.ds` keeps the model for finetune.py.
"""

import argparse
from pydoc_data.topics import topics

import deepseek
from deepseek import Tensor, nn
from deepseek.nn import functional as F


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        batch, time, dim = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, time, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [batch, heads, time, dim / heads] each
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, time, dim))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, characters: int, dim: int = 128, heads: int = 4, layers: int = 3, context: int = 64) -> None:
        super().__init__()
        self.context = context
        self.tokens, self.positions = nn.Embedding(characters, dim), nn.Embedding(context, dim)
        self.blocks = nn.Sequential(*[Block(dim, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, characters)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(deepseek.arange(tokens.shape[1]))  # [batch, time, dim]
        return self.head(self.norm(self.blocks(x)))

    def generate(self, tokens: Tensor, count: int, temperature: float = 0.8) -> Tensor:
        """Continues int64 tokens [batch, time]."""
        with deepseek.no_grad():
            for _ in range(count):
                logits = self(tokens[:, -self.context :])[:, -1] / temperature
                tokens = deepseek.cat([tokens, deepseek.multinomial(logits.softmax(-1), 1)], dim=1)
        return tokens


def english() -> str:
    """The reference behind `help()`, without its tables."""
    lines = "\n\n".join(topics.values()).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("+", "|", "*", "=", "-")))


def encode(text: str, characters: str) -> Tensor:
    return deepseek.tensor([characters.index(c) for c in text if c in characters])


def decode(tokens: Tensor, characters: str) -> str:
    return "".join(characters[i] for i in tokens.tolist())


def train(model: GPT, data: Tensor, steps: int, lr: float, batch: int = 16) -> float:
    """Trains the parameters that require gradients on random windows; returns the mean loss of the last tenth."""
    optimizer = deepseek.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    schedule = deepseek.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps, pct_start=0.1)
    losses = []
    for step in range(1, steps + 1):
        starts = deepseek.randint(0, len(data) - model.context - 1, (batch, 1))
        window = data[starts + deepseek.arange(model.context + 1)]  # [batch, context + 1]
        loss = F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 200 == 0 or step == steps:
            print(f"step {step:5}  loss {losses[-1]:.3f}")
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def main() -> None:
    parser = argparse.ArgumentParser(description="A small GPT.")
    parser.add_argument("--steps", type=int, default=2000, help="mini-batches to train on")
    parser.add_argument("--out", help="file to save the model to")
    options = parser.parse_args()

    deepseek.manual_seed(0)
    text = english()
    characters = "".join(sorted(set(text)))
    model = GPT(len(characters))
    print(f"{len(text):,} characters, {sum(p.numel() for p in model.parameters()):,} parameters")
    train(model, encode(text, characters), options.steps, lr=2e-3)
    print("\n" + decode(model.generate(encode("The ", characters)[None], 400)[0], characters))
    if options.out:
        deepseek.save({"model": model.state_dict(), "characters": characters}, options.out)


if __name__ == "__main__":
    main()
