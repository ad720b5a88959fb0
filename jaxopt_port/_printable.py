"""Names that others gave, as a terminal may show them."""


def printable(text: str) -> str:
    """Return text without the control sequences that a name may carry to a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
