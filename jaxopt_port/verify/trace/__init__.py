"""Reads what `verify.recorder.record` wrote, without torch."""

from ._reference import TraceReference as TraceReference
from ._trace import Trace as Trace
