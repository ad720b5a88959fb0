"""How C keeps and computes the numbers of each type."""

from __future__ import annotations

from typing import NamedTuple


class Format(NamedTuple):
    """How arrays of a type are kept, and in which type they are computed."""

    stored: str
    element: str
    wide: str
    suffix: str
    macros: tuple[str, ...]


_AS_IT_IS = ("#define LOAD(x) (x)", "#define STORE(x) (x)")
# Between operations a value of low precision is a float that has been rounded to it.
_BFLOAT16 = (
    "typedef union { float f; uint32_t u; } Bits;",
    "static inline float LOAD(uint16_t x) { return ((Bits){.u = (uint32_t)x << 16}).f; }",
    "static inline uint16_t STORE(float x) { return ((Bits){.f = x}).u >> 16; }",
    "static inline float ROUND(float x) {",
    "  uint32_t u = ((Bits){.f = x}).u;",
    "  uint32_t even = (u + 0x7fff + ((u >> 16) & 1)) & 0xffff0000;",
    "  return ((Bits){.u = x == x ? even : 0x7fc00000}).f;",
    "}",
)
# Not float16: GCC 12 converts one at a time, and plain XLA is more than twice as fast.
FORMATS = {
    "float32": Format("float", "float", "float32", "f", _AS_IT_IS),
    "float64": Format("double", "double", "float64", "", _AS_IT_IS),
    "bfloat16": Format("uint16_t", "float", "float32", "f", _BFLOAT16),
}
