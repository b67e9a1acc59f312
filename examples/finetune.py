"""Teach the model of gpt.py something else without starting over: most of its layers stay as they are.

    python examples/gpt.py --out gpt.ds
    python examples/finetune.py gpt.ds

It knows English and now reads Python code. Only the last block and the head are trained, a third of the parameters.
You see the loss on code it never saw before (about 2.0) and after (about 1.3), what that costs on the English (1.1 to
1.5), and code that looks right from afar. About twenty seconds.
"""

import argparse
import json
from pathlib import Path

import deepseek
from deepseek import Tensor
from deepseek.nn import functional as F
from gpt import GPT, decode, encode, english, train


def evaluate(model: GPT, data: Tensor, windows: int = 64) -> float:
    """Mean loss over windows spread evenly over the data."""
    starts = deepseek.linspace(0, len(data) - model.context - 2, windows).long()[:, None]
    window = data[starts + deepseek.arange(model.context + 1)]
    with deepseek.no_grad():
        return F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune the model of gpt.py on Python code.")
    parser.add_argument("checkpoint", help="file that gpt.py --out wrote")
    parser.add_argument("--steps", type=int, default=600, help="mini-batches to train on")
    options = parser.parse_args()

    deepseek.manual_seed(0)
    saved = deepseek.load(options.checkpoint)
    characters = saved["characters"]
    model = GPT(len(characters))
    model.load_state_dict(saved["model"])

    prose = encode(english()[:50_000], characters)
    library = Path(json.__file__).parents[1]
    files = [file.read_text(encoding="utf-8") for file in sorted((library / "asyncio").glob("*.py"))]
    code, held_out = encode("".join(files[:-4]), characters), encode("".join(files[-4:]), characters)
    print(f"before: {evaluate(model, held_out):.3f} on code, {evaluate(model, prose):.3f} on English")

    model.requires_grad_(False)
    for part in (model.blocks[-1], model.norm, model.head):
        part.requires_grad_(True)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"training {trained:,} of {sum(p.numel() for p in model.parameters()):,} parameters")
    train(model, code, options.steps, lr=1e-3)

    print(f"after: {evaluate(model, held_out):.3f} on code, {evaluate(model, prose):.3f} on English")
    print("\n" + decode(model.generate(encode("    def ", characters)[None], 400)[0], characters))


if __name__ == "__main__":
    main()
