"""torch's CUDA kernels on a CPU: torch's own optimizers, with what an NVIDIA GPU rounds.

Each formula is what torch's kernels were found to calculate on an H100
(`python -m benchmarks accelerator`).
"""

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


def _fma(a, y, x):
    """One rounding: of float32 the product is exact in 64 bits, and the sum nearly always."""
    wide = [np.asarray(v, np.longdouble) for v in (a, y, x)]
    return (wide[0] * wide[1] + wide[2]).astype(np.float32)


def _addcmul(x, y, z, *, value=1):
    return _fma(y, z, x) if value == 1 else _fma(np.float32(value), y * z, x)


def _addcdiv(x, y, z, *, value=1):
    return _fma(np.float32(value), y / z, x)


def _lerp(x, y, weight):
    w = np.float32(weight)
    return _fma(w, y - x, x) if w < 0.5 else _fma(w - np.float32(1), y - x, y)


def _add(x, y, *, alpha=1):
    return _fma(np.float32(alpha), np.float32(y), x)


def _sub(x, y, *, alpha=1):
    return _add(x, y, alpha=-alpha)


class CudaKernels(TorchDispatchMode):
    """Within it, torch calculates on the CPU what its CUDA kernels do.

    Args:
        listed: a division by a number is ``torch._foreach_div`` by a list of numbers: a true one.
    """

    def __init__(self, *, listed=False):
        super().__init__()

        def div(x, a):
            number = np.ndim(a) == 0 and not listed
            return x * (np.float32(1) / np.float32(a)) if number else x / np.asarray(a, np.float32)

        self._kernels = {
            aten.add: _add,
            aten.sub: _sub,
            aten.addcmul: _addcmul,
            aten.addcdiv: _addcdiv,
            aten.lerp: _lerp,
            aten.div: div,
            aten.sqrt: np.sqrt,
            aten.reciprocal: lambda x: np.float32(1) / x,
        }
        self._kernels |= {getattr(aten, f"{k.__name__}_"): f for k, f in self._kernels.items()}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kernel = self._kernels.get(func.overloadpacket)
        low = (torch.float32, torch.bfloat16)
        # Numbers that torch keeps in tensors (the step) are on the CPU anyway.
        if kernel is None or args[0].dtype not in low or not args[0].ndim:
            return func(*args, **(kwargs or {}))
        given = [a.float().numpy() if isinstance(a, torch.Tensor) else a for a in args]
        with np.errstate(all="ignore"):
            made = torch.from_numpy(np.asarray(kernel(*given, **(kwargs or {})), np.float32))
        in_place = func.overloadpacket.__name__.endswith("_")
        return args[0].copy_(made) if in_place else made.to(args[0].dtype)
