"""All that matters of a GPU or TPU, in order of worth, within a budget of seconds.

Needs what a bare machine has: Python, jax, numpy, optax, flax, and, for what is compared with it,
torch; pytest for the tests. No network, no installation.
"""

from ._command import main as main
