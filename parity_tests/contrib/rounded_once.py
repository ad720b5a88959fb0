"""torch without the errors of its own roots, powers, norms and bases; and with other sums."""

import contextlib

import numpy as np
import torch


@contextlib.contextmanager
def rounded_once():
    """torch whose roots, cube roots, norms, bases and quotients in float32 are rounded correctly.

    Its CPU build has MKL's root and Sleef's power, each up to a unit off, not on every processor
    alike; it adds up the norms of all gradients in float32; and a QR decomposition in float32 (of
    SOAP, whatever the parameters are) is off by more than a unit, as is what is divided by a
    triangular matrix (of Kron, likewise).
    """
    power, length, root = torch.Tensor.pow, torch.linalg.vector_norm, torch.Tensor.sqrt
    decomposed, solved = torch.linalg.qr, torch.linalg.solve_triangular

    def sqrt(x):
        return root(x.double()).to(x.dtype) if x.dtype == torch.float32 else root(x)

    def pow_(x, exponent):
        if x.dtype != torch.float32 or exponent != 1 / 3:
            return power(x, exponent)
        return power(x.double(), float(np.float32(exponent))).to(x.dtype)

    def vector_norm(x, *args, **kwargs):
        if args or kwargs or x.dtype != torch.float32:
            return length(x, *args, **kwargs)
        return length(x.double()).to(x.dtype)

    def qr(x):
        return tuple(part.to(x.dtype) for part in decomposed(x.double()))

    def solve_triangular(matrix, x, **options):
        return solved(matrix.double(), x.double(), **options).to(x.dtype)

    patched = {
        (torch.linalg, "qr"): qr,
        (torch.linalg, "solve_triangular"): solve_triangular,
        (torch.Tensor, "sqrt"): sqrt,
        (torch.Tensor, "sqrt_"): lambda x: x.copy_(sqrt(x)),
        (torch, "sqrt"): sqrt,
        (torch.Tensor, "pow"): pow_,
        (torch.linalg, "vector_norm"): vector_norm,
    }
    with _with(patched):
        yield


@contextlib.contextmanager
def added_otherwise():
    """torch whose products of matrices and means in float32 are added up in another order."""
    product, mean, contracted = torch.tensordot, torch.Tensor.mean, torch.einsum

    def tensordot(x, y, dims):
        return product(x.flip(dims[0]), y.flip(dims[1]), dims)

    def wide_mean(x, *args, **kwargs):
        wide = x.double() if x.dtype == torch.float32 else x
        return mean(wide, *args, **kwargs).to(x.dtype)

    def einsum(subscripts, *arrays):
        return contracted(subscripts, *(x.double() for x in arrays)).to(arrays[0].dtype)

    patched = {(torch, "tensordot"): tensordot, (torch.Tensor, "mean"): wide_mean}
    with _with({**patched, (torch, "einsum"): einsum}):
        yield


@contextlib.contextmanager
def _with(patched):
    kept = {place: getattr(*place) for place in patched}
    for place, function in patched.items():
        setattr(*place, function)
    try:
        yield
    finally:
        for place, function in kept.items():
            setattr(*place, function)


def misrounded() -> str:
    """How many of torch's own roots and cube roots in float32 are not rounded correctly."""
    drawn = torch.from_numpy(np.random.default_rng(3).random(1 << 20, np.float32))
    own = {"roots": drawn.sqrt(), "cube roots": drawn.pow(1 / 3)}
    with rounded_once():
        right = {"roots": drawn.sqrt(), "cube roots": drawn.pow(1 / 3)}
    parts = {name: float((own[name] != right[name]).double().mean()) for name in own}
    return "torch's own: " + ", ".join(f"{part:.1%} of {name}" for name, part in parts.items())


def misrounded_powers(steps: int = 20_000) -> str:
    """Of which steps' ``beta ** step``, of a step that is a tensor, another float32 is nearer."""
    found = []
    for beta in (0.9, 0.999):
        right = np.power(float(np.float32(beta)), np.arange(1, steps + 1)).astype(np.float32)
        own = [(beta ** torch.tensor(float(step))).item() for step in range(1, steps + 1)]
        (wrong,) = np.nonzero(right != np.array(own, np.float32))
        found.append(f"{len(wrong)} of {beta}, the first of step {wrong[0] + 1}")
    return f"of {steps} powers by a tensor: " + "; ".join(found)
