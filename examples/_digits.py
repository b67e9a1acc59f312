"""scikit-learn's handwritten digits for the examples: 1,797 images of 8 x 8 pixels, and a way to look at them."""

from __future__ import annotations

import deepseek
from deepseek import Tensor


def load() -> tuple[Tensor, Tensor]:
    """Returns float32 images [1797, 64] between 0 and 1, and int64 labels [1797]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit("the digits come with scikit-learn: pip install scikit-learn") from None
    data = load_digits()
    return deepseek.from_numpy(data.data).float() / 16, deepseek.from_numpy(data.target).long()


def drawing(images: Tensor) -> str:
    """Images [n, 64] side by side, as text."""
    shades = " .:-=+*#%@"
    levels = (images.reshape(-1, 8, 8).clamp(0, 1) * (len(shades) - 1)).round().long().tolist()
    return "\n".join("  ".join("".join(2 * shades[v] for v in image[row]) for image in levels) for row in range(8))
