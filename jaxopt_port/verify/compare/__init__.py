"""Compares training on both sides, stage by stage."""
