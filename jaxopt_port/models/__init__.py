"""Networks in Flax whose parameter paths and numbers are those of their torch originals."""

from .lenet import LeNet as LeNet
from .lenet import LinenLeNet as LinenLeNet
