"""What wrappers put before the names of parameters."""

from __future__ import annotations

from collections.abc import Iterable

# DistributedDataParallel, DataParallel and AveragedModel; torch.compile; FSDP of the first kind.
WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_forward_module.")
# Modules that hold the one that is meant: Lightning's habit; what a network may be called itself.
HOLDERS = (*WRAPPERS, "model.", "net.", "network.", "backbone.", "student.", "encoder.", "base.")


def shared_prefix(names: Iterable[str], known: tuple[str, ...] = WRAPPERS) -> str:
    """Return the wrappers' prefixes that all names have, one after another: "" for none."""
    listed, prefix = list(names), ""
    while listed:
        found = next(
            (each for each in known if all(name.startswith(prefix + each) for name in listed)), None
        )
        if found is None or any(len(name) == len(prefix + found) for name in listed):
            break
        prefix += found
    return prefix


def common_prefix(names: Iterable[str]) -> str:
    """Return the modules that all names begin with, with a point behind each: "" for none."""
    listed = [name.split(".") for name in names]
    shared = 0
    while listed and all(len(parts) > shared + 1 for parts in listed):
        if len({parts[shared] for parts in listed}) > 1:
            break
        shared += 1
    return "".join(f"{part}." for part in listed[0][:shared]) if listed else ""


def without_inner(name: str) -> str:
    """Return a name without the wrappers that stand within it, as FSDP and torch.compile put."""
    for inner in ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod."):
        name = name.replace(f".{inner}", ".")
    return name


def known_names(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return the names that a map knows, where wrappers before or within them are the difference.

    The wrappers may be in either: a file of the module, and a map of what wraps it. Where some name
    is not known in any of these ways, all are returned as they are.
    """
    listed, plain = list(names), {without_inner(name): name for name in known}
    before, above = shared_prefix(listed, HOLDERS), shared_prefix(plain, HOLDERS)
    for start, prefix in (("", ""), (before, ""), ("", above), (before, above)):
        made = {
            name: plain.get(prefix + without_inner(name.removeprefix(start))) for name in listed
        }
        found = {name: there for name, there in made.items() if there is not None}
        if len(set(found.values())) == len(listed):
            return found
    return {name: name for name in listed}
