"""A class whose arguments are those of ``__new__`` is shown with them."""

from typing import Any

import griffe


class New(griffe.Extension):
    """Let ``__new__`` stand where the site looks for ``__init__``."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called by griffe when all of a class is known."""
        if "__new__" in cls.members and "__init__" not in cls.members:
            new = cls.members["__new__"]
            made = griffe.Function(
                "__init__", parameters=new.parameters, parent=cls, lineno=new.lineno
            )
            cls.set_member("__init__", made)
