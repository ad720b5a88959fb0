"""Parameters and gradients for a few steps, the same in every process."""

import numpy as np

STEPS = 4


def named(case):
    return f"{case['optimizer']} {case['options']}"


def drawn(shapes):
    """By shape, as a string: parameters, and gradients for each step."""

    def of(shape, seed):
        return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)

    def tree(seed):
        return {"x".join(map(str, shape)) or "scalar": of(shape, seed) for shape in shapes}

    return tree(0), [tree(1 + step) for step in range(STEPS)]
