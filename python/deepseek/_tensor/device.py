"""``deepseek.device``: where a tensor lives, which is always the CPU."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["device"]


# What PyTorch takes for the name of a device, whether there is one or not.
DEVICE_TYPES = (
    "cpu", "cuda", "fpga", "hip", "hpu", "ideep", "ipu", "lazy", "maia", "meta", "mkldnn", "mps", "mtia", "opencl",
    "opengl", "privateuseone", "ve", "vulkan", "xla", "xpu",
)  # fmt: skip


def no_device(text: str) -> RuntimeError:
    """The error for a device other than the CPU."""
    from deepseek import _C

    if isinstance(getattr(_C, text, None), _C.dtype):
        return RuntimeError(f"{text!r} is the name of a dtype, not of a device: use deepseek.{text}")
    return RuntimeError(f"device {text!r} is not available: deepseek runs on the CPU only, use device='cpu'")


class device:
    """A device, for scripts that name one: ``device("cpu")``, ``device("cpu:0")``, ``device("cpu", 0)``.

    As a context manager it changes nothing, because new tensors are on the CPU anyway.

    Args:
        type: ``"cpu"``, optionally with an index, or another ``device``.
        index: device index; must not be given twice.

    Raises:
        RuntimeError: any other device.
    """

    __slots__ = ("index", "type")
    __match_args__ = ("type", "index")
    type: str
    index: int | None

    def __init__(self, type: str | device | int, index: int | None = None) -> None:
        text = str(type)
        name, colon, number = text.partition(":")
        if name != "cpu" or (colon and not number.isdigit()):
            raise no_device(text)
        if colon and index is not None:
            raise RuntimeError(f"type (string) must not include an index because index was passed explicitly: {text}")
        self.type = name
        self.index = int(number) if colon else index

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{index})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, device):
            return NotImplemented
        return (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __reduce__(self) -> tuple[Any, ...]:
        return device, (self.type, self.index)

    def __enter__(self) -> device:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


CPU = device("cpu")
