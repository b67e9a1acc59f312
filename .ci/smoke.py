"""A few operations that touch each kind of kernel: SIMD, OpenBLAS, oneDNN, autograd, files. Needs the package alone.

Usage: python .ci/smoke.py [folder]; fails when the package was imported from below `folder`.
"""

import sys
import tempfile
from pathlib import Path

import deepseek

package = Path(deepseek.__file__).resolve()
if len(sys.argv) > 1:
    source_tree = Path(sys.argv[1]).resolve()
    assert source_tree not in package.parents, f"{package} is inside the source tree {source_tree}"

deepseek.manual_seed(0)
for dtype in (deepseek.float32, deepseek.float64, deepseek.bfloat16):
    x = deepseek.arange(6, dtype=dtype).reshape(2, 3)
    assert (x @ x.T).tolist() == [[5, 14], [14, 50]], dtype
    assert x.sum(1).tolist() == [3, 12], dtype

x = deepseek.randn(67, 33)
row_sums = x.softmax(-1).sum(-1)
assert (row_sums - 1).abs().max().item() < 1e-5

weight = deepseek.randn(33, 5, requires_grad=True)
target = deepseek.randint(0, 5, (67,))
losses = []
for _ in range(20):
    loss = deepseek.nn.functional.cross_entropy(x @ weight, target)
    loss.backward()
    with deepseek.no_grad():
        weight -= weight.grad
        weight.grad = None
    losses.append(loss.item())
assert losses[-1] < 0.8 * losses[0], losses

with tempfile.TemporaryDirectory() as folder:
    deepseek.save({"weight": weight.detach()}, f"{folder}/weight.ds")
    assert deepseek.load(f"{folder}/weight.ds")["weight"].equal(weight.detach())
print(f"smoke test passed: deepseek {deepseek.__version__} from {package.parent}")
