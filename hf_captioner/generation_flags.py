"""The flags that say how captions are generated: one for each field of GenerationConfig."""

import argparse
import ast
import dataclasses
import inspect
import itertools
import types
import typing
from typing import Any

from hf_captioner.config import GenerationConfig


def add_generation_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for each field of GenerationConfig, which says in its docstrings what they are."""
    group = parser.add_argument_group(
        "generation", "defaults are those of the checkpoint's generation_config.json, or else as shown"
    )
    kinds, helps = typing.get_type_hints(GenerationConfig), _field_docstrings(GenerationConfig)
    for field in dataclasses.fields(GenerationConfig):
        flag, kind = f"--{field.name.replace('_', '-')}", kinds[field.name]
        settings: dict[str, Any] = {"type": kind, "metavar": kind.__name__.upper()}
        if kind is bool:
            settings = {"action": argparse.BooleanOptionalAction}
        elif isinstance(kind, types.GenericAlias):
            settings = {"action": "append", "metavar": "WORD"}
        shown = field.default if field.default not in ("", ()) else "none"
        explained = helps[field.name].replace("`", "").replace("%", "%%").rstrip(".")
        explained += "; may be given again" if settings.get("action") == "append" else ""
        group.add_argument(flag, default=None, help=f"{explained} (default: {shown})", **settings)


def given_generation(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of GenerationConfig that were given."""
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(GenerationConfig)}
    return {name: value for name, value in given.items() if value is not None}


def _field_docstrings(kind: type) -> dict[str, str]:
    """Field name -> the string literal that stands below it in the class's source."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    found = {}
    for pair in itertools.pairwise(typing.cast(ast.ClassDef, definition).body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found
