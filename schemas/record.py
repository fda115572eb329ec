"""JSON records: frozen dataclasses that go to disk and come back, with unknown and missing keys as errors."""

import dataclasses
import functools
import json
import types
import typing
from typing import Any, Final, TypeVar

from schemas.errors import SchemaError

R = TypeVar("R")

_SCALARS: Final = (str, int, float, bool)  # most of a ledger, so they are seen to first


def to_json(record: Any) -> str:
    """The record as JSON with sorted keys, two-space indent and a final newline: same record, same bytes."""
    return json.dumps(dataclasses.asdict(record), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def canonical_json(value: Any) -> str:
    """`value` as JSON in one canonical spelling (sorted keys, no spaces), for digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def from_json(cls: type[R], text: str | bytes, where: str) -> R:
    """Read a record of dataclass `cls` from the JSON of the file named by `where`.

    Raises `SchemaError` for text that is not JSON, unknown or missing keys, and values of another type.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise SchemaError(f"{where}: not valid JSON ({error}). Delete the file and run the stage again.") from None
    return typing.cast(R, _build(cls, value, where))


def _build(annotation: Any, value: Any, where: str) -> Any:
    if annotation is Any or (type(value) is annotation and annotation in _SCALARS):
        return value
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if dataclasses.is_dataclass(annotation):
        return _build_dataclass(annotation, value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        inner = [a for a in arguments if a is not type(None)]
        return _build(inner[0] if len(inner) == 1 else _choose(inner, value, where), value, where)
    if origin is tuple:
        _expect(isinstance(value, list), where, "a list", value)
        return tuple(_build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        _expect(isinstance(value, dict), where, "an object", value)
        return {key: _build(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if annotation is float:
        _expect(isinstance(value, int | float) and not isinstance(value, bool), where, "a number", value)
        return float(value)
    _expect(type(value) is annotation, where, annotation.__name__, value)
    return value


def _build_dataclass(cls: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), where, "an object", value)
    hints = _type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise SchemaError(f"{where}: unknown keys {', '.join(unknown)}; known are {', '.join(sorted(fields))}.")
    missing = sorted(
        name
        for name, f in fields.items()
        if name not in value and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    )
    if missing:
        raise SchemaError(f"{where}: missing keys {', '.join(missing)}.")
    return cls(**{name: _build(hints[name], item, f"{where}: {name}") for name, item in value.items()})


def _choose(candidates: list[Any], value: Any, where: str) -> Any:
    """The first of several dataclasses that knows all keys of `value`."""
    _expect(isinstance(value, dict), where, "an object", value)
    known = [cls for cls in candidates if set(value) <= {f.name for f in dataclasses.fields(cls)}]
    names = " or ".join(cls.__name__ for cls in candidates)
    _expect(bool(known), where, f"the keys of {names}", sorted(value))
    return known[0]


@functools.cache
def _type_hints(cls: Any) -> dict[str, Any]:
    """The resolved annotations of `cls`. Kept, because a dataset may have 100,000 ledger entries to read."""
    return typing.get_type_hints(cls)


def _expect(holds: bool, where: str, expected: str, value: Any) -> None:
    if not holds:
        raise SchemaError(f"{where}: expected {expected}, found {value!r}.")
