"""What the verification harness and the conversion of checkpoints find, and what they cost."""

from ._commands import COMMANDS as COMMANDS
