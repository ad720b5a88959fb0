"""Checkpoints in files: torch's, safetensors, shards, Orbax; whole or not at all."""
