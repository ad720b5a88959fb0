"""Files changed at random, from a seed: their bytes, or what is within their containers."""

from __future__ import annotations

import io
import json
import random
import zipfile
from typing import Any

_OTHERS = (None, -1, 2**70, "x", "nan", [], {}, [[]], {"a": []}, 1.5, True, [1] * 9, "../a")


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes of a file changed: as they are, or within what holds them."""
    if rng.random() < 0.4 or not data:
        return _bytes(data, rng)
    if data[:2] == b"PK":
        return _within_zip(data, rng)
    if data[:1] == b"{":
        return _json(data, rng)
    if data[8:9] == b"{":
        return _header(data, rng)
    return _bytes(data, rng)


def _bytes(data: bytes, rng: random.Random) -> bytes:
    """Some replaced, cut out, or doubled elsewhere."""
    made, how = bytearray(data or b"x"), rng.randrange(3)
    at = rng.randrange(len(made))
    if how == 0:
        for _ in range(rng.randrange(1, 8)):
            made[rng.randrange(len(made))] = rng.randrange(256)
    elif how == 1:
        del made[at : at + rng.randrange(1, 64)]
    else:
        source = rng.randrange(len(made))
        made[at:at] = made[source : source + rng.randrange(1, 64)]
    return bytes(made)


def _within_zip(data: bytes, rng: random.Random) -> bytes:
    """A member changed, mostly the pickle, and packed again with the right sums."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = [(info, source.read(info)) for info in source.infolist()]
    pickles = [info.filename for info, _ in members if info.filename.endswith("data.pkl")]
    chosen = pickles[0] if rng.random() < 0.7 else rng.choice(members)[0].filename
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as target:
        for info, content in members:
            own = _bytes(content, rng) if info.filename == chosen else content
            target.writestr(info.filename, own, info.compress_type)
    return made.getvalue()


def _json(data: bytes, rng: random.Random) -> bytes:
    """A value replaced, a key renamed, or a part left out; of lines of JSON, in the first."""
    lines = [data] if data.startswith(b"{\n") else data.splitlines(keepends=True)
    record = json.loads(lines[0])
    _change(record, rng)
    return b"".join([json.dumps(record).encode() + b"\n", *lines[1:]])


def _change(record: dict[str, Any], rng: random.Random) -> None:
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(record)
    if not places:
        return
    holder, key = rng.choice(places)
    how = rng.randrange(3)
    if how == 0:
        holder[key] = rng.choice(_OTHERS)
    elif how == 1 or not isinstance(holder, dict):
        del holder[key]
    else:
        holder[f"{key}_"] = holder.pop(key)


def _header(data: bytes, rng: random.Random) -> bytes:
    """The header of a safetensors file, or what this library keeps in it."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    own = header.get("__metadata__", {}).get("jaxopt_port")
    if own is not None and rng.random() < 0.7:
        record = json.loads(own)
        _change(record, rng)
        header["__metadata__"]["jaxopt_port"] = json.dumps(record)
    else:
        _change(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
