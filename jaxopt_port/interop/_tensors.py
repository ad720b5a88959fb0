from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

# What NumPy lacks of its own: torch's dtype, the integers of its size, and the name of ml_dtypes.
BY_BITS = {
    "bfloat16": ("int16", ml_dtypes.bfloat16),
    "float8_e4m3fn": ("int8", ml_dtypes.float8_e4m3fn),
    "float8_e4m3fnuz": ("int8", ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2": ("int8", ml_dtypes.float8_e5m2),
    "float8_e5m2fnuz": ("int8", ml_dtypes.float8_e5m2fnuz),
    "float8_e8m0fnu": ("int8", ml_dtypes.float8_e8m0fnu),
}


def array_of(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a tensor's values, detached and on the CPU; over its memory where that can be.

    Args:
        tensor: of any shape, strides, device and dtype that NumPy or ml_dtypes has.

    Raises:
        TypeError: it is no dense tensor, or NumPy has no such dtype.
    """
    torch = import_torch()
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"Expected a torch tensor, got {type(tensor).__name__}.")
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise TypeError(
            f"A tensor of layout {tensor.layout} and dtype {tensor.dtype} has no NumPy counterpart;"
            " make it dense first (to_dense() or dequantize())."
        )
    if tensor.is_meta:
        raise TypeError(
            'A tensor on the "meta" device has no values; load the module or its checkpoint first.'
        )
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    name = dtype_name(plain)
    if name in BY_BITS:
        integer, dtype = BY_BITS[name]
        bits: NDArray[Any] = plain.view(getattr(torch, integer)).numpy()
        return bits.view(dtype)
    array: NDArray[Any] = plain.numpy()
    return array


def tensor_of(array: Any) -> torch.Tensor:
    """Return an array's values as a tensor of the same dtype, on the CPU, with its own memory.

    Args:
        array: NumPy or JAX array, or a number.

    Raises:
        TypeError: torch has no such dtype.
    """
    import_torch()
    import torch

    # torch warns of read-only arrays, which JAX's are; and nothing may alias what JAX keeps.
    private = np.array(array, order="C")
    if private.dtype.name in BY_BITS:
        integer, _ = BY_BITS[private.dtype.name]
        bits = torch.from_numpy(private.view(integer))
        tensor: torch.Tensor = bits.view(getattr(torch, private.dtype.name))
        return tensor
    tensor = torch.from_numpy(private)
    return tensor


def to_jax(array: NDArray[Any]) -> jax.Array:
    """Return a JAX array of the same dtype, with its own memory, even where x64 is off."""
    # NumPy makes the copy: JAX may read what it is given after the call has returned.
    with jax.enable_x64(True):
        return jnp.asarray(np.array(array, order="C"))


def dtype_name(tensor: torch.Tensor) -> str:
    """Return a tensor's dtype as NumPy and ml_dtypes name it: "float32", "bfloat16"."""
    return str(tensor.dtype).removeprefix("torch.")


def import_torch() -> Any:
    """Return torch.

    Raises:
        ImportError: torch is not installed; the message says how to install it.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "jaxopt_port.interop needs torch: pip install 'jaxopt-port[torch]'."
        ) from error
    return torch
