"""Recognise handwritten digits: a small network, mini-batches, a held-out set.

    python examples/digits.py

You see the loss fall, then about 98 % of the held-out digits right, and three images with what the network takes them
for. About two seconds; needs scikit-learn, for the images.
"""

import argparse
import time

import _digits
import deepseek
from deepseek import nn
from deepseek.utils.data import DataLoader, TensorDataset, random_split


def main() -> None:
    parser = argparse.ArgumentParser(description="Recognise handwritten digits.")
    parser.add_argument("--steps", type=int, default=1500, help="mini-batches to train on")
    steps = parser.parse_args().steps

    deepseek.manual_seed(0)
    images, labels = _digits.load()
    train, test = random_split(TensorDataset(images, labels), [1497, 300])
    loader = DataLoader(train, batch_size=64, shuffle=True, drop_last=True)

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    optimizer = deepseek.optim.AdamW(model.parameters(), lr=2e-3)
    criterion = nn.CrossEntropyLoss()

    begin, step = time.perf_counter(), 0
    while step < steps:
        for x, y in loader:  # [64, 64], [64]
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 250 == 0 or step == steps:
                print(f"step {step:5}  loss {loss.item():.3f}")
            if step == steps:
                break
    print(f"{steps} steps in {time.perf_counter() - begin:.1f} s")

    model.eval()  # no dropout
    with deepseek.no_grad():
        x, y = next(iter(DataLoader(test, batch_size=len(test))))
        guesses = model(x).argmax(1)
    print(f"{(guesses == y).float().mean().item():.1%} of {len(test)} held-out digits are right")
    print(f"\ntaken for {guesses[:3].tolist()}:\n{_digits.drawing(x[:3])}")


if __name__ == "__main__":
    main()
