"""The command ``jaxopt-port convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import DownloadColumn, TransferSpeedColumn

from ._frame import JsonFile, counting, usage_errors, waiting, write_json
from ._shown import say, show


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A file, or a folder with a model in shards.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="The file or folder; its name says the format.")
    ],
    torch: Annotated[
        str | None,
        typer.Option(metavar="FILE:FUNC", help="A function that makes the torch module."),
    ] = None,
    jax: Annotated[
        str | None,
        typer.Option(
            metavar="FILE:FUNC",
            help="A function that makes the Flax module, or its tree of parameters.",
        ),
    ] = None,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            metavar="torch|jax|NAME=AXES",
            help="Whose names and layouts DST has; with both factories, the other side's. Or the "
            "axes of one tensor by hand: fc.weight=1,0; repeatable.",
            show_default="those of SRC",
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW",
            help="A rule from torch's names to JAX paths, a regular expression and what replaces "
            "it: '^encoder\\.='; repeatable, with both factories.",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A class or function in SRC that may be imported and run, package.module.Name; "
            "repeatable. Only for files that you trust.",
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The optimizer's class, AdamW; torch does not save it."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=KEY",
            help="For a file of torch's that does not say what is what: params=net, optimizer=opt, "
            "scheduler=sched; repeatable.",
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="For a folder: the most bytes in a file, 500MB, 5GB."),
    ] = None,
    params_only: Annotated[
        bool, typer.Option("--params-only", help="Leave out optimizer, scheduler and the rest.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written; write nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace DST if it is there.")] = False,
    json: JsonFile = None,
) -> None:
    """Convert a checkpoint: from file to file, and between torch's layout and JAX's.

    SRC is looked at, whatever its name: files of torch.save, read without running what is in them,
    .safetensors, folders of a run (jaxopt-port show says what is in one). The name of DST says the
    format: .pt, .pth, .bin and .ckpt are torch's; .safetensors is one file of parameters,
    optimizer, scheduler and the rest; a folder is a model in shards with an index, parameters only.

    Example, file to file: jaxopt-port convert run.pt run.safetensors

    To JAX's names and layouts: jaxopt-port convert run.pt run.safetensors --optimizer AdamW
    --torch model.py:make_torch --jax model.py:make_flax

    The map between the two is made of both factories, shown, and kept in the file, so that the way
    back needs none: jaxopt-port convert run.safetensors back.pt --layout torch

    In shards: jaxopt-port convert run.pt model/ --params-only --max-shard-size 2GB

    Exit code 0: DST is written whole. 2: something does not fit, nothing is written, and an old DST
    is as it was.
    """
    from ..interop import save
    from . import _conversion, _parsed

    with usage_errors():
        size = None if max_shard_size is None else _parsed.parsed_size(max_shard_size)
        whose, layouts = _parsed.parsed_layouts(layout or [])
        with waiting(f"reading {source}"):
            found, converted, notes = _conversion.prepared(
                source, target, torch=torch, jax=jax, layout=whose, optimizer=optimizer,
                keys=_parsed.parsed_keys(key) if key else None,
                rename=_parsed.parsed_rules(rename or []), layouts=layouts, allow=allow or [],
                params_only=params_only, force=force,
            )  # fmt: skip
        show(_conversion.contents(found, str(source)))
        for note in notes:
            say(f"Note: {note}")
        if torch is not None:
            say(f"{converted.param_map}\n")
        if not dry_run:
            with counting(DownloadColumn(), TransferSpeedColumn()) as bar:
                task = bar.add_task("writing", total=converted.nbytes)
                save(
                    target,
                    converted,
                    max_shard_size=size,
                    progress=lambda n: bar.advance(task, n),
                )
        title = f"{target} (not written: --dry-run)" if dry_run else str(target)
        show(_conversion.contents(converted, title))
        facts = _conversion.facts(converted)
        write_json(json, {"target": target, "written": not dry_run, **facts, "notes": notes})
        if not dry_run:
            say(f"Written to {target}")
