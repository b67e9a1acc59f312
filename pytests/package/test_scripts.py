"""What scripts for PyTorch set and ask before they train: accepted, with one warning where it does nothing."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import deepseek
import pytest
from deepseek import nn
from deepseek._binding import once
from deepseek.utils import data

PREAMBLES = {
    "mnist": """
import deepseek as torch
import deepseek.nn as nn, deepseek.nn.functional as F, deepseek.optim as optim
from deepseek.optim.lr_scheduler import StepLR
use_accel = torch.accelerator.is_available()
torch.manual_seed(1)
device = torch.accelerator.current_accelerator() if use_accel else torch.device("cpu")
kwargs = {"num_workers": 1, "persistent_workers": True, "pin_memory": True, "shuffle": True}
images = torch.utils.data.TensorDataset(torch.rand(8, 4), torch.tensor([0, 1] * 4))
loader = torch.utils.data.DataLoader(images, batch_size=4, **kwargs)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.25), nn.Linear(8, 2), nn.LogSoftmax(1)).to(device)
optimizer = optim.AdamW(model.parameters(), lr=1.0)
scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
for x, target in loader:
    x, target = x.to(device, non_blocking=True), target.to(device)
    optimizer.zero_grad(set_to_none=True)
    F.nll_loss(model(x), target).backward()
    optimizer.step()
scheduler.step()
""",
    "nanoGPT": """
import inspect
from contextlib import nullcontext
import deepseek as torch
seed_offset = 0
torch.manual_seed(1337 + seed_offset)
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True
device_type = "cpu"
dtype = "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float16"
ptdtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
ctx = nullcontext() if device_type == "cpu" else torch.amp.autocast(device_type=device_type, dtype=ptdtype)
model = torch.nn.Linear(4, 4)
model.to("cpu")
scaler = torch.cuda.amp.GradScaler(enabled=(dtype == "float16"))
fused_available = "fused" in inspect.signature(torch.optim.AdamW).parameters
assert fused_available
optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), fused=device_type == "cuda")
model = torch.compile(model)
with ctx:
    loss = model(torch.ones(2, 4)).sum()
scaler.scale(loss).backward()
scaler.unscale_(optimizer)
torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
scaler.step(optimizer)
scaler.update()
optimizer.zero_grad(set_to_none=True)
x = torch.zeros(3, dtype=torch.int64)
x = x.pin_memory().to("cpu", non_blocking=True)
""",
    "reproducible": """
import deepseek as torch
import deepseek.backends.cudnn as cudnn
cudnn.benchmark = False
cudnn.deterministic = True
torch.backends.cudnn.enabled = True
assert torch.backends.cudnn.deterministic is True and not cudnn.is_available() and cudnn.version() is None
torch.use_deterministic_algorithms(True, warn_only=True)
assert torch.are_deterministic_algorithms_enabled()
torch.cuda.manual_seed(0); torch.cuda.manual_seed_all(0)
torch.cuda.empty_cache()
torch.cuda.set_rng_state_all(torch.cuda.get_rng_state_all())
assert torch.cuda.memory_allocated() == torch.cuda.max_memory_allocated() == torch.cuda.device_count() == 0
torch.set_float32_matmul_precision("high")
torch.set_num_threads(1); torch.set_num_interop_threads(1)
assert torch.set_flush_denormal(True) is False and torch.get_default_device() == torch.device("cpu")
assert not (torch.backends.mps.is_available() or torch.backends.mkldnn.is_available())
assert not (torch.backends.mkl.is_available() or torch.backends.openmp.is_available())
assert torch.version.cuda is None
torch.autograd.set_detect_anomaly(False)
assert not torch.jit.is_scripting() and not torch.jit.is_tracing()
info = torch.utils.data.get_worker_info()
assert info is None
x = torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last)
x = x.contiguous(memory_format=torch.channels_last)
model = torch.nn.Linear(2, 2).to(memory_format=torch.channels_last)
torch.cuda.synchronize()
""",
    "mixed precision": """
import deepseek as torch
from deepseek.utils.data.dataloader import DataLoader
from deepseek.utils.data.dataset import Dataset, TensorDataset
from deepseek.utils.data.sampler import RandomSampler
use_amp = torch.cuda.is_available() or torch.xpu.is_available() or torch.accelerator.is_available()
scaler = torch.amp.GradScaler("cuda", enabled=use_amp)
assert torch.GradScaler is torch.amp.GradScaler and scaler.scale(3.0) == 3.0
a = torch.ones(2, 2)
with torch.autocast("cuda", enabled=False), torch.autocast(device_type="cuda", enabled=torch.cuda.is_available()):
    assert (a @ a).dtype is torch.float32 and not torch.is_autocast_enabled("cuda")
with torch.cpu.amp.autocast():
    with torch.autocast("cuda", enabled=False):
        assert (a @ a).dtype is torch.bfloat16  # the CPU's is another one
        assert torch.is_autocast_enabled() and not torch.is_autocast_enabled("cuda")
with torch.cuda.amp.autocast():
    assert (a @ a).dtype is torch.bfloat16
    with torch.cuda.amp.autocast(enabled=False):
        assert (a @ a).dtype is torch.float32
for kind in ("flash", "mem_efficient", "math", "cudnn"):
    assert getattr(torch.backends.cuda, f"{kind}_sdp_enabled")()
    getattr(torch.backends.cuda, f"enable_{kind}_sdp")(False)
    assert not getattr(torch.backends.cuda, f"{kind}_sdp_enabled")()
    getattr(torch.backends.cuda, f"enable_{kind}_sdp")(True)
assert torch.cpu.is_available() and torch.cpu.device_count() == 1
assert torch.autograd.gradcheck is torch.testing.gradcheck
import io
file = io.BytesIO()
torch.save(a, file)
for where in ("cpu", torch.device("cpu"), lambda storage, location: storage, {"cuda:0": "cpu"}):
    file.seek(0)
    assert torch.equal(torch.load(file, map_location=where), a)
""",
}
WARNINGS: dict[str, list[str]] = {
    "mixed precision": [],
    "mnist": ["DataLoader(num_workers=...)", "DataLoader(pin_memory=True)"],
    "nanoGPT": ["Tensor.pin_memory()"],
    "reproducible": [
        "set_float32_matmul_precision('high')",
        "memory_format=deepseek.channels_last",
        "cuda.synchronize()",
    ],
}


@pytest.mark.parametrize("name", PREAMBLES)
def test_a_script_runs_and_hears_once_what_does_nothing(name: str) -> None:
    script = f"import warnings\nwarnings.simplefilter('always')\n{PREAMBLES[name] * 2}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heard = [line.partition("UserWarning: ")[2] for line in done.stderr.splitlines() if "Warning: " in line]
    assert [line.partition(" has no effect: ")[0] for line in heard] == WARNINGS[name]


@pytest.fixture(autouse=True)
def _hear_again() -> Iterator[None]:
    before = set(once._given)
    once._given.clear()
    yield
    once._given.clear()
    once._given.update(before)


def function(x: Any) -> Any:
    return x + 1


ONCE: list[tuple[Callable[[], Any], str]] = [
    (lambda: data.DataLoader([1, 2], num_workers=2), "num_workers"),
    (lambda: data.DataLoader([1, 2], pin_memory=True), "pin_memory=True"),
    (lambda: deepseek.compile(function, mode="max-autotune"), r"compile\(mode=...\)"),
    (lambda: deepseek.compile(function, backend="eager"), r"compile\(backend=...\)"),
    (lambda: deepseek.compile(function, dynamic=True), r"compile\(dynamic=...\)"),
    (lambda: deepseek.jit(function, options={"a": 1}), r"compile\(options=...\)"),
    (lambda: deepseek.ones(1).pin_memory(), r"Tensor.pin_memory\(\)"),
    (lambda: deepseek.cuda.synchronize(), r"cuda.synchronize\(\)"),
    (lambda: deepseek.autograd.set_detect_anomaly(True), r"set_detect_anomaly\(True\)"),
    (lambda: deepseek.autograd.detect_anomaly().__enter__(), r"set_detect_anomaly\(True\)"),
    (lambda: deepseek.set_float32_matmul_precision("medium"), "'medium'"),
    (lambda: deepseek.set_num_interop_threads(4), "set_num_interop_threads"),
    (lambda: nn.Linear(1, 1).to(memory_format=deepseek.channels_last), "channels_last"),
]


@pytest.mark.parametrize(("call", "text"), ONCE)
def test_warned_once_and_where_it_was_called(call: Callable[[], Any], text: str) -> None:
    with pytest.warns(UserWarning, match=text) as heard:
        call()
        call()
    assert len(heard) == 1 and heard[0].filename == __file__
    deepseek.set_float32_matmul_precision("highest")


def test_what_loses_nothing_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.DataLoader([1, 2], num_workers=0, pin_memory=False, timeout=0, worker_init_fn=print)
        deepseek.compile(function, mode="default", fullgraph=True, dynamic=False, backend="inductor")
        deepseek.jit(function, options={})
        deepseek.backends.cudnn.benchmark = True
        deepseek.backends.cuda.matmul.allow_tf32 = False
        deepseek.use_deterministic_algorithms(False)
        deepseek.set_float32_matmul_precision("highest")
        deepseek.cuda.empty_cache()
        deepseek.optim.AdamW([deepseek.ones(1)], foreach=True, fused=True, capturable=True)
        deepseek.cuda.amp.GradScaler(), deepseek.cuda.amp.autocast()
        deepseek.ones(1).to("cpu", non_blocking=True, memory_format=deepseek.preserve_format)
    deepseek.backends.cudnn.benchmark = False


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: deepseek.ones(1).cuda(), RuntimeError, "CPU only"),
        (lambda: deepseek.ones(1).to("cuda"), RuntimeError, "CPU only"),
        (lambda: nn.Linear(1, 1).cuda(), RuntimeError, "CPU only"),
        (
            lambda: deepseek.ones(1).to("float32"),
            RuntimeError,
            "name of a dtype, not of a device: use deepseek.float32",
        ),
        (lambda: nn.Linear(1, 1).to("bfloat16"), RuntimeError, "use deepseek.bfloat16"),
        (lambda: deepseek.amp.GradScaler("cuda"), RuntimeError, "CPU only"),
        (lambda: deepseek.autocast("cuda"), RuntimeError, "CPU only"),
        (lambda: deepseek.autocast("gpu", enabled=False), RuntimeError, "'gpu' is not the name of a device"),
        (lambda: deepseek.load("x", map_location="cuda"), ValueError, "must be 'cpu'"),
        (lambda: deepseek.load("x", map_location={"cpu": "cuda"}), ValueError, "must be 'cpu'"),
        (lambda: deepseek.set_default_device("cuda"), RuntimeError, "CPU only"),
        (lambda: deepseek.cuda.get_device_name(0), RuntimeError, "no CUDA device"),
        (lambda: deepseek.cuda.set_device(0), RuntimeError, "no CUDA device"),
        (lambda: deepseek.cuda.set_rng_state_all([deepseek.ones(1)]), RuntimeError, "no CUDA device"),
        (lambda: deepseek.set_float32_matmul_precision("low"), RuntimeError, "highest, high, medium"),
        (lambda: deepseek.set_num_interop_threads(0), RuntimeError, "positive"),
        (lambda: deepseek.use_deterministic_algorithms(3), TypeError, "must be bool, not int"),  # type: ignore[arg-type]
        (lambda: deepseek.compile(function, mode="fast"), RuntimeError, "Unrecognized mode=fast"),
        (lambda: deepseek.compile(function, mode="default", options={}), RuntimeError, "Either mode or options"),
        (lambda: setattr(deepseek.backends.cuda.matmul, "alow_tf32", True), AttributeError, "alow_tf32"),
    ],
)
def test_what_cannot_be_is_refused(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        call()


def test_a_disabled_compile_is_the_function() -> None:
    assert deepseek.compile(function, disable=True) is function
    assert deepseek.compile(disable=True)(function) is function


def test_loading_without_workers_gives_the_same_batches() -> None:
    class Squares(data.Dataset[int]):
        def __getitem__(self, index: int) -> int:
            return index**2

        def __len__(self) -> int:
            return 7

    class Stream(data.IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            worker = data.get_worker_info()
            return iter(range(0 if worker is None else 3, 5))

    options: dict[str, Any] = {"num_workers": 2, "prefetch_factor": 3, "persistent_workers": True, "timeout": 1.0}
    for source in (Squares(), Stream()):
        with pytest.warns(UserWarning, match="num_workers"):
            loader = data.DataLoader(source, batch_size=2, **options)
        once._given.clear()
        alone = data.DataLoader(source, batch_size=2)
        assert [b.tolist() for b in loader] == [b.tolist() for b in alone] and len(list(loader)) == len(list(alone))
        assert (loader.num_workers, loader.prefetch_factor, loader.timeout) == (2, 3, 1.0)
        assert (alone.num_workers, alone.prefetch_factor) == (0, None)


def test_channels_last_is_an_order_of_dims() -> None:
    x = deepseek.ones(2, 3, 4, 5)
    assert x.is_contiguous() and not x.is_contiguous(memory_format=deepseek.channels_last)
    y = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert y.is_contiguous(memory_format=deepseek.channels_last) and not y.is_contiguous()
    assert not deepseek.ones(3).is_contiguous(memory_format=deepseek.channels_last)
    assert repr(deepseek.channels_last) == "deepseek.channels_last"


@pytest.mark.parametrize(
    ("call", "dtype", "same"),
    [
        (lambda x: x.to(deepseek.float64), deepseek.float64, False),
        (lambda x: x.to(deepseek.float32), deepseek.float32, True),
        (lambda x: x.to(deepseek.float32, False, True), deepseek.float32, False),
        (lambda x: x.to(deepseek.float32, copy=True), deepseek.float32, False),
        (lambda x: x.to("cpu"), deepseek.float32, True),
        (lambda x: x.to("cpu", deepseek.float16, True, True), deepseek.float16, False),
        (lambda x: x.to(None, deepseek.int32), deepseek.int32, False),
        (lambda x: x.to(device="cpu", dtype=deepseek.int8), deepseek.int8, False),
        (lambda x: x.to(deepseek.ones(1, dtype=deepseek.int64)), deepseek.int64, False),
        (lambda x: x.to(deepseek.ones(1), True, True), deepseek.float32, False),
        (lambda x: x.to(other=deepseek.ones(1)), deepseek.float32, True),
        (lambda x: x.to(int), deepseek.int64, False),
        (lambda x: x.to(), deepseek.float32, True),
    ],
)
def test_forms_of_to(call: Callable[[Any], Any], dtype: Any, same: bool) -> None:
    x = deepseek.ones(2)
    assert call(x).dtype is dtype and (call(x) is x) == same
