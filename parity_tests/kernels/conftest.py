import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_port import kernels
from jaxopt_port.kernels import _compiler, _library, _switch


class Fresh:
    """Kernels as a new process has them, with a folder of its own."""

    def __init__(self, monkeypatch, folder):
        self._patch = monkeypatch
        self.folder = folder
        monkeypatch.setenv("JAXOPT_PORT_CACHE", str(folder))
        monkeypatch.setenv("JAXOPT_PORT_KERNELS", "on")
        self.restart()

    def restart(self):
        self._patch.setattr(_library, "_process", _library._Process())
        self._patch.setattr(_library, "_made", {})
        self._patch.setattr(_switch, "_warned", set())

    def source(self, number):
        """A loop that is like no other: it multiplies by a number."""
        leaf = jax.ShapeDtypeStruct((3,), jnp.float32)
        return kernels.written(lambda arrays, _: [arrays[0] * jnp.float32(number)], [leaf], {})

    def target(self, number):
        return kernels.prepared(self.source(number)).target()

    def name(self, number):
        text = _compiler.text_of(self.source(number).code)
        return _compiler.name_of(text, _compiler.machine(_compiler.Clock()))

    def file(self, number):
        return self.folder / f"{self.name(number)}.so"

    def product(self, target, number):
        """What a kernel makes of numbers, beside what it should."""
        x = jnp.asarray([1.0, -3.0, 0.1], jnp.float32)
        with jax.enable_x64(True):
            call = jax.ffi.ffi_call(target, [jax.ShapeDtypeStruct(x.shape, x.dtype)])
            (made,) = call(jnp.zeros((1, 1)), x, groups=np.zeros(1, np.int32))
        np.testing.assert_array_equal(made, np.asarray(x) * np.float32(number))


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    made = Fresh(monkeypatch, tmp_path / "kept")
    yield made
    for kernel in _library._made.values():
        assert kernel.wait(60)


@pytest.fixture
def always(monkeypatch):
    """Kernels, whatever the run as a whole is told."""
    monkeypatch.setenv("JAXOPT_PORT_KERNELS", "on")
