"""Reads frozen dataclasses from YAML, with `path=value` overrides and every problem in one message.

PyYAML reads `3e-4` as text and `no` as false, so a value is converted by the type of its field.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from lora_rec.errors import RecipeError, did_you_mean

T = TypeVar("T")


def require(checks: Sequence[tuple[bool, str]]) -> None:
    """Refuses a section whose settings do not fit together.

    Args:
        checks: what has to hold, and what is wrong where it does not.

    Raises:
        RecipeError: one line for each that does not hold.
    """
    problems = [text for ok, text in checks if not ok]
    if problems:
        raise RecipeError("\n".join(problems))


def load_config(cls: type[T], path: str | Path, *, overrides: Sequence[str] = ()) -> T:
    """Reads a YAML file into a frozen dataclass and applies overrides.

    Args:
        cls: dataclass whose fields are values or further dataclasses. What its `ELSEWHERE` says of a key that
            it does not have is told where it comes up.
        path: YAML file with one mapping.
        overrides: `section.field=value`, split at the first `=`; the value is read as YAML.

    Raises:
        RecipeError: the file is missing or no mapping, or any key or value is wrong; all are named.
    """
    file = Path(path)
    if not file.is_file():
        raise RecipeError(
            f"{path}: no such recipe; give the path of a YAML file, e.g. recipes/configs/quickstart.yaml"
        )
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), Loader=_OnceLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML; {error}") from error
    except _Repeated as error:
        raise RecipeError(f"{path}: {error}; put the two together") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: holds no mapping; start with a section such as 'train:'")
    for override in overrides:
        _apply_override(tree, override)
    return build_config(cls, tree, where=str(path))


class _Repeated(Exception):
    """A key that is there twice; the text says where."""


class _OnceLoader(yaml.BaseLoader):
    """Gives every value as text, and refuses a key that is there twice, of which YAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds one mapping."""
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in seen:
                    raise _Repeated(f"{key.value!r} is there twice, in lines {seen[key.value]} and {line}")
                seen[key.value] = line
        return super().construct_mapping(node, deep=deep)


def build_config(cls: type[T], tree: Mapping[str, Any], *, where: str = "recipe") -> T:
    """Builds a frozen dataclass from nested mappings; see `load_config`."""
    problems: list[str] = []
    result = _build(cls, tree, path="", problems=problems)
    if problems:
        raise RecipeError(f"{where}: {len(problems)} problem(s)\n" + "\n".join(f"  {p}" for p in problems))
    return typing.cast(T, result)


def dump_config(config: Any) -> str:
    """Writes a config as YAML that `load_config` reads back to an equal object."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise RecipeError(f"{override!r}: not an override; write section.field=value, e.g. train.epochs=2")
    *sections, field = path.split(".")
    for section in sections:
        child = tree.setdefault(section, {})
        if not isinstance(child, dict):
            raise RecipeError(f"{path}: {section!r} is a value, not a section; write section.field=value")
        tree = child
    try:
        value = yaml.load(text, Loader=yaml.BaseLoader) if text else ""
    except yaml.YAMLError:
        value = text
    # A template such as {title} reads as a mapping, {title} ({year}) as broken YAML, a separator such as # or
    # | as a comment or the start of a block; overrides are none of these.
    is_lost = value in (None, "") and text not in ("''", '""')
    tree[field] = text if isinstance(value, dict) or is_lost else value


def _build(cls: type, tree: Mapping[str, Any], *, path: str, problems: list[str]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    elsewhere: dict[str, str] = getattr(cls, "ELSEWHERE", {})
    values: dict[str, Any] = {}
    before = len(problems)
    for key, raw in tree.items():
        where = f"{path}{key}"
        if key not in fields:
            hint = elsewhere.get(key) or did_you_mean(str(key), fields) or f"known: {', '.join(fields)}"
            problems.append(f"{where}: unknown key; {hint}")
        elif (section := _section(hints[key])) is not None:
            if isinstance(raw, Mapping):
                values[key] = _build(section, raw, path=f"{where}.", problems=problems)
            elif section is not hints[key] and raw == "":
                problems.append(
                    f"{where}: empty; write {key}: {{}} for its defaults, or null to go without it"
                )
            elif section is not hints[key] and _is_null(raw):
                values[key] = None
            else:
                problems.append(f"{where}: {raw!r} is a value, not a section; give it fields")
        else:
            try:
                values[key] = convert(raw, hints[key])
            except ValueError as error:
                problems.append(f"{where}: {error}")
    for name, field in fields.items():
        missing = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if missing and name not in tree:
            problems.append(f"{path}{name}: missing; give it a value")
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except RecipeError as error:
        problems.extend(f"{path}{line}" for line in str(error).splitlines())
        return None


def _section(hint: Any) -> type | None:
    """Gives the dataclass that a field holds, one that may be left out (`Section | None`) too."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    return next((part for part in parts if isinstance(part, type) and dataclasses.is_dataclass(part)), None)


def _is_null(raw: Any) -> bool:
    return raw is None or (isinstance(raw, str) and raw.lower() in ("null", "none", "~", ""))


def convert(raw: Any, hint: Any) -> Any:
    """Converts a YAML scalar or sequence to the type of a field.

    >>> convert("3e-4", float), convert("no", str), convert("null", int | None)
    (0.0003, 'no', None)

    Raises:
        ValueError: the value does not read as that type; the text says which was expected.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if _is_null(raw):
            return None
        return convert(raw, next(a for a in args if a is not type(None)))
    if origin is Literal:
        if str(raw) in args:
            return str(raw)
        hint_text = did_you_mean(str(raw), args) or f"choose one of {', '.join(args)}"
        raise ValueError(f"{raw!r} is not a choice; {hint_text}")
    if origin is tuple:
        if isinstance(raw, str) or not isinstance(raw, Sequence):
            raise ValueError(f"{raw!r} is not a list; write [a, b]")
        return tuple(convert(item, args[0]) for item in raw)
    return _convert_scalar(raw, hint)


def _convert_scalar(raw: Any, hint: type) -> Any:
    if isinstance(raw, (Mapping, list, tuple)):
        raise ValueError(f"{raw!r} is not a single value; expected {hint.__name__}")
    if hint is bool:
        text = str(raw).lower()
        if text in ("true", "yes", "on"):
            return True
        if text in ("false", "no", "off"):
            return False
        raise ValueError(f"{raw!r} is neither true nor false")
    try:
        value = hint(raw)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        return value
    except (TypeError, ValueError):
        expected = {"int": "a whole number", "float": "a number"}.get(hint.__name__, hint.__name__)
        raise ValueError(f"{raw!r} is not {expected}") from None
