"""Mistakes that mypy finds: each line says how. Read by ../test_typing.py, not run."""

import deepseek
import deepseek.nn.functional as F
from deepseek import Tensor, nn, optim
from deepseek.utils.data import DataLoader, Dataset, TensorDataset

t = deepseek.ones(2)
nn.Linaer(1, 2)  # attr-defined
nn.Conv2d(1, 2, 3)  # attr-defined
deepseek.tenosr([1])  # attr-defined
deepseek.float_power_(t, 2)  # attr-defined
deepseek.math  # attr-defined
nn.F  # attr-defined
deepseek.fft.fft(t)  # attr-defined
F.reluu(t)  # attr-defined
optim.Adamw(nn.Linear(1, 1).parameters())  # attr-defined
optim.lr_scheduler.CosineLR  # attr-defined
nn.init.xavier_uniform(t)  # attr-defined
nn.utils.clip_gradient(t)  # attr-defined
deepseek.linalg.svd(t)  # attr-defined
deepseek.utils.data.Dataloader  # attr-defined
deepseek.utils.tensorboard  # attr-defined
deepseek.autograd.Funktion  # attr-defined
deepseek.amp.autocastt  # attr-defined
deepseek.cuda.Stream()  # attr-defined
deepseek.backends.cudnn.benchmrk = True  # attr-defined
deepseek.jit.script(print)  # attr-defined
deepseek.quantization.QuantLinear  # attr-defined
deepseek.random.seeds()  # attr-defined
deepseek.return_types.maximum  # attr-defined
t.foo  # attr-defined
t.stft(4)  # attr-defined
t.sum().fooo()  # attr-defined
(t + 1).bar  # attr-defined
t.grad.sum()  # union-attr
F.relu("a")  # arg-type
F.relu(t, 1.0, True)  # call-arg
F.cross_entropy(t, [1, 2])  # arg-type
F.softmax(t, dim="a")  # arg-type
nn.Linear("a", 2)  # arg-type
nn.Linear(1, 2, dtype="float32")  # arg-type
nn.init.normal_(t, generator=0)  # arg-type
DataLoader(TensorDataset(t), generator=0)  # arg-type
DataLoader(3)  # arg-type
nn.Linear(1)  # call-arg
nn.Linear(1, 2, biass=False)  # call-arg
deepseek.zeros(2, dtype="float32")  # arg-type
deepseek.softmax(t)  # call-arg
t.reshape("a")  # arg-type
t.transpose(0)  # call-arg
t.view(1.5)  # call-overload
deepseek.cat(t, axis=1)  # call-arg
deepseek.manual_seed("a")  # arg-type
deepseek.set_default_dtype("float32")  # arg-type
deepseek.set_float32_matmul_precision(3)  # arg-type
optim.SGD(nn.Linear(1, 1).parameters(), lr="a")  # arg-type
deepseek.jit(lambda x: x, modus="fast")(t)
deepseek.compile(lambda x: x, mod="fast")  # call-overload


class Names(Dataset[str]):
    def __getitem__(self, index: int) -> int:  # override
        return index


wrong: DataLoader[str] = DataLoader(TensorDataset(t))  # arg-type
text: str = t.sum()  # assignment
number: int = deepseek.ones(2)  # assignment
pair: tuple[Tensor, ...] = deepseek.where(t > 0, t, t)  # assignment
