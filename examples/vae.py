"""Invent handwritten digits: a variational autoencoder (Kingma and Welling, 2013).

    python examples/vae.py

You see its two losses (how well an image is drawn again from 8 numbers, and how far those numbers are from a normal
distribution), then digits drawn from random numbers. About five seconds; needs scikit-learn, for the images.
"""

import argparse

import _digits
import deepseek
from deepseek import Tensor, nn
from deepseek.nn import functional as F


class VAE(nn.Module):
    def __init__(self, pixels: int = 64, hidden: int = 256, latent: int = 8) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.SiLU(), nn.Linear(hidden, pixels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the two losses of images [batch, pixels], each the mean over the batch."""
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)  # [batch, latent] each
        z = mean + deepseek.randn_like(mean) * (0.5 * log_variance).exp()
        drawn = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        return drawn / len(x), divergence / len(x)

    def sample(self, count: int) -> Tensor:
        """Returns images [count, pixels] between 0 and 1."""
        with deepseek.no_grad():
            return self.decoder(deepseek.randn(count, self.latent)).sigmoid()


def main() -> None:
    parser = argparse.ArgumentParser(description="Invent handwritten digits.")
    parser.add_argument("--steps", type=int, default=4000, help="mini-batches to train on")
    steps = parser.parse_args().steps

    deepseek.manual_seed(0)
    images, _ = _digits.load()
    model = VAE()
    optimizer = deepseek.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = deepseek.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for step in range(1, steps + 1):
        batch = images[deepseek.randint(0, len(images), (128,))]
        drawn, divergence = model(batch)
        optimizer.zero_grad()
        (drawn + divergence).backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0 or step == steps:
            print(f"step {step:5}  drawing {drawn.item():.2f}  divergence {divergence.item():.2f}")
    print(f"\ninvented:\n{_digits.drawing(model.sample(5))}")


if __name__ == "__main__":
    main()
