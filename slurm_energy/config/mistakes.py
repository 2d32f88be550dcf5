"""A mistake in a table of settings, in one line for the person who wrote it: file, key, value, what was expected."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard, get_args, get_origin

import msgspec


def explain(
    error: msgspec.ValidationError,
    struct_type: type[msgspec.Struct],
    file: str,
    table: Mapping[str, Any],
    place: str = "",
) -> str:
    """`config.toml, [site] lookback_days = 'x': expected `int`, got `str``, out of msgspec's words and path.

    error:       what `msgspec.convert(table, struct_type)` raised
    file:        what the line calls the file
    table:       the settings as TOML gives them
    place:       where they stand in the file, such as `agent` for [agent]; empty for the whole file
    """
    what, _, where = str(error).partition(" - at `")
    path = [place] if place else []
    value: Any = table
    kind: Any = struct_type
    for name, index in re.findall(r"\.([\w-]+)|\[(\d+|\.\.\.)\]", where):
        # Of a table whose keys are names msgspec says [...] for the key.
        key = name or (_culprit(kind, value) if index == "..." else int(index))
        kind = _within(kind, key)
        path.append(key if isinstance(key, str) else f"#{key + 1}")
        if isinstance(value, list):
            value = value[int(key)]
        elif key in value:
            value = value[key]
    if match := re.match(r"Object contains unknown field `(.*)`", what):
        return f"{file}, {_heading(path)} {match[1]}: no such key{_hint(match[1], kind, struct_type, place)}"
    said = f"{what[:1].lower()}{what[1:]}"
    if path[bool(place) :]:
        return f"{file}, {_heading(path[:-1])} {path[-1]} = {value!r}: {said}"
    return f"{file}, {_heading(path)}: {said}"


def _heading(path: list[str]) -> str:
    return f"[{'.'.join(path) or 'top level'}]"


def _within(kind: Any, key: str | int) -> Any:
    """The type of what stands under a key of a struct, a table of names or a list."""
    if _is_struct(kind):
        return next((field.type for field in msgspec.structs.fields(kind) if field.name == key), Any)
    inner = get_args(kind)
    return (inner[-1] if get_origin(kind) is dict else inner[0]) if inner else Any


def _culprit(kind: Any, table: Mapping[str, Any]) -> str:
    """The key of a table of names, which is to be of this type, whose value is wrong."""
    for name, entry in table.items():
        try:
            msgspec.convert({name: entry}, kind, str_keys=True)
        except msgspec.ValidationError:
            return name
    return "..."


def _hint(key: str, kind: Any, struct_type: type[msgspec.Struct], place: str) -> str:
    """The key of this table that was probably meant, else the table in which this key would be one."""
    from difflib import get_close_matches

    near = get_close_matches(key, kind.__struct_fields__ if _is_struct(kind) else (), 1)
    if near:
        return f"; did you mean {near[0]}?"
    homes = list(dict.fromkeys(_homes(key, struct_type, place)))
    return f"; it belongs in {' or '.join(homes)}" if homes else ""


def _homes(key: str, kind: Any, place: str) -> Iterator[str]:
    """Headings of the tables, in what is of this type and stands at this place, that may have such a key."""
    if _is_struct(kind):
        for field in msgspec.structs.fields(kind):
            if field.name == key and place:
                yield f"[{place}]"
            yield from _homes(key, field.type, f"{place}.{field.name}".lstrip("."))
    elif get_origin(kind) is dict:
        yield from _homes(key, get_args(kind)[-1], f"{place}.NAME")
    elif get_origin(kind) is list:
        yield from (f"[{home}]" for home in _homes(key, get_args(kind)[0], place))


def _is_struct(kind: Any) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
