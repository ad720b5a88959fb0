"""Bad input: a call, the error that it must raise, and torch's call, whose words come first."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest


class Bad(NamedTuple):
    """A call that is to be refused; ``torch`` is the same of torch, whose words then come first."""

    call: Callable[[], Any]
    error: type[Exception]
    message: str
    torch: Callable[[], Any] | None = None


def assert_refused(bad: Bad, held: Any) -> None:
    """The call raises what it must, with torch's words first, and ``held`` is as it was."""
    before = jax.tree.map(np.array, held)
    with pytest.raises(bad.error, match=re.compile(bad.message, re.DOTALL)) as ours:
        bad.call()
    jax.tree.map(np.testing.assert_array_equal, held, before)
    if bad.torch is None:
        return
    with pytest.raises(bad.error) as of_torch:
        bad.torch()
    words = str(of_torch.value).rstrip(".").partition(" (")[0]  # without what only torch has
    assert str(ours.value).startswith(words)
