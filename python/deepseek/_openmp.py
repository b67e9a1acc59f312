"""Loads the core with a short OpenMP spin, then sleep.

libgomp's default is to spin for milliseconds after each parallel region, which on a busy machine costs whole scheduler
quanta. It reads its settings when it is loaded, so they are given just then, unless the user chose some.
"""

import os

_SPINS = "2000"  # about 20 microseconds

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = _SPINS
    try:
        from deepseek import _C as _C
    finally:
        del os.environ["GOMP_SPINCOUNT"]
