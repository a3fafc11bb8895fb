"""The fields of GenerationConfig as flags of a command line."""

import argparse
import dataclasses
import types
import typing
from typing import Any

from hf_captioner.config import GenerationConfig


def add_generation_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for each field of GenerationConfig; one that is not given leaves the checkpoint's own setting."""
    group = parser.add_argument_group("search", "what is not given is as the checkpoint says")
    for field in dataclasses.fields(GenerationConfig):
        flag, kind = f"--{field.name.replace('_', '-')}", typing.get_type_hints(GenerationConfig)[field.name]
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        elif isinstance(kind, types.GenericAlias):
            group.add_argument(flag, action="append", metavar="WORD", default=None, help="may be given again")
        else:
            group.add_argument(flag, type=kind, default=None, metavar=kind.__name__.upper())


def generation_options(options: argparse.Namespace) -> dict[str, Any]:
    """The search fields that were given on the command line."""
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(GenerationConfig)}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value is not None
    }
