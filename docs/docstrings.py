"""What the site makes of docstrings."""

import re
from typing import Any

import griffe

TORCH = "https://docs.pytorch.org/docs/stable"
# torch documents these on a page of many, not on one of their own.
PAGES = {
    "swa_utils.": f"{TORCH}/optim.html",
    "torch.amp.": f"{TORCH}/amp.html",
    "optim.Optimizer$": f"{TORCH}/optim.html#torch.optim.Optimizer",
}


def linked(name: str) -> str:
    """Return a name of torch's with a link to its page."""
    page = next((page for part, page in PAGES.items() if part in f"{name}$"), None)
    return f"[`{name}`]({page or f'{TORCH}/generated/{name}.html'})"


class Docstrings(griffe.Extension):
    """Examples are code, torch's counterpart is linked, ``__new__`` has a class's arguments."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe when an object is known."""
        if obj.docstring is None:
            return
        text = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
        obj.docstring.value = re.sub(
            r"``(torch\.(?:optim|amp)\.(?:\w+\.)?[A-Z][\w.]*)``", lambda m: linked(m[1]), text
        )

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called by griffe when all of a class is known."""
        if "__new__" in cls.members and "__init__" not in cls.members:
            new = cls.members["__new__"]
            made = griffe.Function(
                "__init__", parameters=new.parameters, parent=cls, lineno=new.lineno
            )
            cls.set_member("__init__", made)
