"""Types that mypy gives: each line says which. Read by ../test_typing.py, not run."""

import deepseek
import deepseek.nn.functional as F
from deepseek import Tensor, nn, optim
from deepseek.utils.data import BatchSampler, ConcatDataset, DataLoader, Dataset, RandomSampler, Subset, TensorDataset


@deepseek.jit
def double(x: Tensor) -> Tensor:
    return x * 2


t = deepseek.ones(2)
data = TensorDataset(t)

reveal_type(t)  # Tensor
reveal_type(deepseek.tensor([1.0]))  # Tensor
reveal_type(deepseek.Tensor([1.0]))  # Tensor
reveal_type(t + 1)  # Tensor
reveal_type(1 - t)  # Tensor
reveal_type(t @ t)  # Tensor
reveal_type(t == t)  # Tensor
reveal_type(-t)  # Tensor
reveal_type(t[0])  # Tensor
reveal_type(t.sum())  # Tensor
reveal_type(t.to("cpu"))  # Tensor
reveal_type(t.T)  # Tensor
reveal_type(t.float())  # Tensor
reveal_type(t.grad)  # Tensor | None
reveal_type(t.shape)  # Size
reveal_type(t.dtype)  # dtype
reveal_type(t.size(0))  # int
reveal_type(t.size())  # Size
reveal_type(t.dim())  # int
reveal_type(t.type())  # str
reveal_type(t.split(1))  # tuple[Tensor, ...]
reveal_type(t.unbind())  # tuple[Tensor, ...]
reveal_type(t.nonzero())  # Tensor
reveal_type(t.nonzero(as_tuple=True))  # tuple[Tensor, ...]
reveal_type(t.max(0).values)  # Tensor
reveal_type(t.is_contiguous())  # bool
reveal_type(deepseek.where(t > 0))  # tuple[Tensor, ...]
reveal_type(deepseek.where(t > 0, t, 0.0))  # Tensor
reveal_type(deepseek.unique(t))  # Tensor
reveal_type(deepseek.unique(t, return_counts=True))  # tuple[Tensor, ...]
reveal_type(deepseek.std_mean(t))  # tuple[Tensor, Tensor]
reveal_type(deepseek.atleast_2d(t))  # Tensor
reveal_type(deepseek.meshgrid(t, t))  # tuple[Tensor, ...]
reveal_type(deepseek.einsum("i->", t))  # Tensor
reveal_type(deepseek.broadcast_shapes((1,), (2,)))  # Size
reveal_type(deepseek.autograd.grad(t, t))  # tuple[Tensor, ...]
reveal_type(deepseek.linalg.norm(t))  # Tensor
reveal_type(F.relu(t))  # Tensor
reveal_type(F.softmax(t, dim=0))  # Tensor
reveal_type(F.cross_entropy(t, t))  # Tensor
reveal_type(F.scaled_dot_product_attention(t, t, t))  # Tensor
reveal_type(nn.Linear(1, 1).weight)  # Parameter
reveal_type(nn.Linear(1, 1).to("cpu"))  # Linear
reveal_type(nn.Linear(1, 1).eval())  # Linear
reveal_type(nn.Linear(1, 1).requires_grad_())  # Linear
reveal_type(list(nn.Linear(1, 1).parameters()))  # list[Parameter]
reveal_type(nn.utils.clip_grad_norm_([t], 1.0))  # Tensor
reveal_type(optim.SGD([t], 0.1).param_groups)  # list[dict[str, Any]]
reveal_type(double)  # Compiled[[x: Tensor], Tensor]
reveal_type(double(t))  # Tensor
reveal_type(double.explain())  # str
reveal_type(deepseek.compile(mode="default")(nn.Linear(1, 1)))  # Compiled[[*args: Any, **kwargs: Any], Any]
reveal_type(DataLoader(data))  # DataLoader[tuple[Tensor, ...]]
reveal_type(DataLoader(["a"]))  # DataLoader[str]
reveal_type(Subset(data, [0]))  # Subset[tuple[Tensor, ...]]
reveal_type(ConcatDataset([data, data]))  # ConcatDataset[tuple[Tensor, ...]]
reveal_type(data + data)  # ConcatDataset[tuple[Tensor, ...]]
reveal_type(data[0])  # tuple[Tensor, ...]
reveal_type(next(iter(RandomSampler(data))))  # int
reveal_type(next(iter(BatchSampler(RandomSampler(data), 2, False))))  # list[int]
reveal_type(deepseek.cuda.is_available())  # bool
reveal_type(deepseek.get_default_device())  # device
reveal_type(deepseek.manual_seed(0))  # Generator
reveal_type(deepseek.finfo(deepseek.float32).eps)  # float


def samples(source: Dataset[int]) -> None:
    reveal_type(source[0])  # int
