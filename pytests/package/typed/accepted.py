"""What users write: mypy --strict has nothing to say about it. Read by ../test_typing.py, not run."""

from collections.abc import Iterator

import deepseek
import deepseek.nn.functional as F
from deepseek import Tensor, nn, optim
from deepseek.backends import cudnn
from deepseek.optim.lr_scheduler import CosineAnnealingLR
from deepseek.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Subset, TensorDataset, random_split

deepseek.manual_seed(0)
cudnn.benchmark = True
deepseek.backends.cuda.matmul.allow_tf32 = True
device = deepseek.device("cuda" if deepseek.cuda.is_available() else "cpu")


class Squares(Dataset[tuple[Tensor, int]]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return deepseek.tensor([float(index)]), index**2


class Lines(IterableDataset[str]):
    def __iter__(self) -> Iterator[str]:
        yield "line"


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, 1))
        self.scale = nn.Parameter(deepseek.ones(1))
        self.register_buffer("offset", deepseek.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.layers(x)
        return F.dropout(hidden, 0.1, self.training) * self.scale


def train(model: nn.Module, loader: DataLoader[tuple[Tensor, int]], steps: int) -> float:
    optimizer = optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    scheduler = CosineAnnealingLR(optimizer, steps)
    loss = deepseek.tensor(0.0)
    for x, y in loader:
        optimizer.zero_grad(set_to_none=True)
        with deepseek.autocast("cpu", dtype=deepseek.bfloat16):
            loss = F.mse_loss(model(x.to(device)), y.to(device, deepseek.float32, non_blocking=True))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
    return float(loss)


@deepseek.no_grad()
def evaluate(model: Net, x: Tensor) -> list[float]:
    model.eval()
    values: list[float] = model(x).squeeze(-1).tolist()
    return values


@deepseek.jit
def step(x: Tensor, factor: float) -> Tensor:
    return (x * factor).relu()


data = Squares(10)
parts: list[Subset[tuple[Tensor, int]]] = random_split(data, [8, 2])
loader = DataLoader(parts[0], batch_size=4, shuffle=True, num_workers=2, pin_memory=True, drop_last=True)
model = Net(8).to("cpu")
compiled = deepseek.compile(model, mode="default")
train(model, loader, 10)
evaluate(model, deepseek.ones(2, 1))
x = step(deepseek.randn(3, 4, requires_grad=True), 2.0)
values, indices = x.max(1)
top = x.topk(2).values
x[..., 0] = x.sum(dim=-1, keepdim=False)
x = x.reshape(-1, 2).transpose(0, 1).contiguous() @ deepseek.eye(6)
total: float = x.sum().item()
rows: int = x.size(0) + x.shape[1] + len(x)
mask = (x > 0) & ~x.isnan()
chosen = deepseek.where(mask, x, 0.0)
where = deepseek.where(mask)[0]
halves = [part.mean() for part in x.split(2)]
deepseek.save(model.state_dict(), "model.safetensors")
model.load_state_dict(deepseek.load("model.safetensors"))
sampler = RandomSampler(data, generator=deepseek.Generator().manual_seed(1))
batches = DataLoader(TensorDataset(x, x), sampler=sampler, collate_fn=lambda samples: samples)
numbers = DataLoader([1.0, 2.0], batch_size=None)
grads = deepseek.autograd.grad(x.sum(), [x])
print(step.explain(), deepseek.jit.is_recording(), isinstance(x, deepseek.FloatTensor), x.dtype is deepseek.float32)
