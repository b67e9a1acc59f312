"""Switches of the libraries that PyTorch computes with, for scripts that set them: none of them is used here."""

from __future__ import annotations

from deepseek._binding.missing import guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from deepseek.backends import cuda as cuda
    from deepseek.backends import cudnn as cudnn
    from deepseek.backends import mkl as mkl
    from deepseek.backends import mkldnn as mkldnn
    from deepseek.backends import mps as mps
    from deepseek.backends import openmp as openmp

__all__ = ["cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp"]

guard(__name__, lazy=__all__)
