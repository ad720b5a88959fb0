"""Optimizer steps and training steps, here and in the peers: measured, kept, drawn, compared."""
