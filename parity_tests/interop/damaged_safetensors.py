"""Ways in which a safetensors file is damaged, and what is said of each."""

import json


def cut(size):
    return lambda data: data[:size]


def with_header(change):
    """A file whose header is changed, and whose length still fits."""

    def damage(data):
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        text = change(header)
        text = (text if isinstance(text, str) else json.dumps(header)).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return damage


def entry(**changes):
    return with_header(lambda header: header["params/a"].update(changes))


def with_record(change):
    """A file whose metadata is changed."""

    def inner(header):
        record = json.loads(header["__metadata__"]["jaxopt_port"])
        text = change(record)
        header["__metadata__"]["jaxopt_port"] = json.dumps(record) if text is None else text

    return with_header(inner)


def group(i, **changes):
    """A file with something else in one of its parameter groups."""
    return with_record(lambda r: r["optimizer"]["rest"]["param_groups"][i].update(changes))


def state(change):
    """A file with something else in the optimizer's state, which JSON has as pairs."""
    return with_record(lambda record: change(record["optimizer"]["state"]["$dict"]))


def with_step(value):
    return state(lambda pairs: pairs[0][1].update(step=value))


def flipped(position):
    return lambda data: data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


def twice(header):
    text = json.dumps(header)
    return text[:-1] + ', "params/a": ' + json.dumps(header["params/a"]) + "}"


DEEP = "[" * 100_000 + "]" * 100_000  # more than any Python's json reads
SAFETENSORS = {
    "empty": (cut(0), "has 0 bytes"),
    "4 bytes": (cut(4), "has 4 bytes"),
    "the length alone": (cut(8), "announce a header"),
    "half the header": (cut(200), "cut off"),
    "one byte less": (lambda data: data[:-1], "cut off"),
    "half the data": (lambda data: data[:-40], "cut off"),
    "a byte more": (lambda data: data + b"\0", "the file's data at"),
    "a huge length": (lambda data: b"\xff" * 8 + data[8:], "announce a header of 1844674407"),
    "a length of none": (lambda data: b"\0" * 8 + data[8:], "its header is not JSON"),
    "another format": (lambda data: b"\x89HDF\r\n\x1a\n" + data, "it is of HDF5"),
    "a flip in the length": (flipped(1), "announce a header|not JSON"),
    "a flip at the header's start": (flipped(8), "not JSON"),
    "a flip within the header": (flipped(300), "not JSON"),
    "a list for a header": (with_header(lambda _: "[1]"), "its header is list"),
    "a key twice": (with_header(twice), "'params/a' stands there twice"),
    "deep nesting": (with_header(lambda _: "[" * 100_000), "not JSON"),
    "metadata that is no dict": (
        with_header(lambda header: header.update(__metadata__=3)),
        "'__metadata__' is not a dict",
    ),
    "no offsets": (with_header(lambda header: header["params/a"].pop("data_offsets")), "not say"),
    "an unknown dtype": (entry(dtype="F12"), "no dtype 'F12'"),
    "a dtype that is a list": (entry(dtype=["F32"]), r"no dtype \['F32'\]"),
    "another dtype": (entry(dtype="F64"), "takes 16 bytes; its data_offsets hold 8"),
    "a negative shape": (entry(shape=[-2]), "its shape is"),
    "a shape of text": (entry(shape="2"), "its shape is '2'"),
    "another shape": (entry(shape=[3]), r"shape \(3,\) of F32 takes 12 bytes"),
    "a shape beyond 64 bits": (entry(shape=[2**40, 2**40]), "takes 4835703278458516698824704"),
    "offsets out of range": (entry(data_offsets=[10**6, 10**6 + 8]), "the file has data from 0"),
    "offsets turned": (entry(data_offsets=[8, 0]), "its data_offsets are"),
    "negative offsets": (entry(data_offsets=[-8, 0]), "its data_offsets are"),
    "overlapping": (
        with_header(lambda h: h["params/b"].update(data_offsets=[4, 28])),
        "within params/a|begins at",
    ),
    "an array missing": (
        with_header(lambda header: header.pop("params/a")),
        "no array has the bytes from",
    ),
    "a name that was not saved": (
        with_header(lambda header: header.update({"params/c": header.pop("params/a")})),
        "a is missing; c is not among the names",
    ),
    "the metadata is not JSON": (with_record(lambda _: "{"), "in its metadata is not JSON"),
    "the metadata of another": (with_record(lambda r: r.update(format="x")), "does not say"),
    "a newer version": (with_record(lambda r: r.update(version=2)), "Install a newer jaxopt_port"),
    "a version that is none": (with_record(lambda r: r.update(version="1")), "version is '1'"),
    "no layout": (with_record(lambda r: r.pop("layout") and None), "metadata has no 'layout'"),
    "an unknown layout": (with_record(lambda r: r.update(layout="tf")), "layout is 'tf'"),
    "an array that is none of pairs": (
        with_record(lambda r: r.update(complex128=["params/x"])),
        "has no 'params/x'",
    ),
    "deep extras": (
        with_record(lambda r: json.dumps({**r, "extra": {"deep": "DEEP"}}).replace('"DEEP"', DEEP)),
        "nested too deep|not JSON",
    ),
    "extras that are none": (with_record(lambda r: r.update(extra=3)), "must be a dict"),
    "averages that are none": (with_record(lambda r: r.update(averages=3)), "damaged|must be"),
    "optimizers that are a list": (with_record(lambda r: r.update(optimizers=[1])), "damaged"),
    "a map that is none": (with_record(lambda r: r.update(param_map={})), "no record of a Param"),
    "an array that is not there": (with_step({"$array": "x"}), "no array of that name"),
    "a float that is none": (with_step({"$float": "x"}), "could not convert"),
    "an index twice": (group(1, params=[0]), r"\[0\] are in 'param_groups' twice"),
    "an index out of range": (group(1, params=[7]), "not 0 to 1"),
    "an index of text": (group(1, params=["1"]), "no list of indices"),
    "more names than parameters": (group(1, param_names=["b", "c"]), "1 parameters and 2 names"),
    "no groups": (
        with_record(lambda r: r["optimizer"]["rest"].update(param_groups=[])),
        "'param_groups' is empty",
    ),
    "state of no parameter": (state(lambda pairs: pairs.append([9, {}])), "an entry for 9"),
    "state that is text": (state(lambda pairs: pairs.append([9, "x"])), "an entry for 9"),
    "a NaN step": (with_step({"$float": "nan"}), "step of parameter 0 is nan"),
    "an infinite step": (with_step({"$float": "inf"}), "step of parameter 0 is inf"),
    "a negative step": (with_step(-1), "step of parameter 0 is -1.0"),
    "a fraction of a step": (with_step(1.5), "step of parameter 0 is 1.5"),
    "a step of text": (with_step("3"), "step of parameter 0 is '3'; it must be one number"),
    "a step of 400 digits": (with_step(10**400), "damaged"),
    "a step of many": (with_step({"$array": "params/b"}), r"array of shape \(3, 2\)"),
}
