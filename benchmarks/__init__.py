"""Measurements of this library beside Optax and torch; run ``python -m benchmarks``."""
