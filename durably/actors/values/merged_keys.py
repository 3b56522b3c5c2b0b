"""Keys of a JSON object that a type reads as one: `"1"` and `"1.0"` of a `dict[float, int]`, a UUID in both cases.

Decoding keeps the last of them. What comes from outside must not lose the others without a word (rule V5).
"""

from __future__ import annotations

from typing import Any

from durably.actors.values.descriptions import shortened
from durably.actors.values.places import below
from durably.actors.values.records import fields_of, is_record
from durably.actors.values.type_checks import is_class, is_mapping, is_sequence
from durably.errors import UndecodableError


def refuse_merged_keys(value: Any, written: Any, path: str = "$") -> None:
    """See that all keys of `written`, which is plain JSON, are in `value`, which it was decoded to.

    Raises:
        UndecodableError: some are read as one key; names the place and what is left.
    """
    if is_mapping(value) and is_mapping(written):
        # Of a TypedDict, keys that it does not declare are dropped, and all that are left are in the JSON.
        if len(value) < len(written) and not all(isinstance(key, str) and key in written for key in value):
            raise _merged(value, written, path)
        pairs = zip(value.values(), written.items(), strict=True) if len(value) == len(written) else ()
        for part, (name, part_written) in pairs:
            refuse_merged_keys(part, part_written, below(path, name))
    elif is_record(value):
        for name, part in _written_fields(value, written):
            refuse_merged_keys(getattr(value, name, None), part, f"{path}.{name}")
    elif is_sequence(value) and is_sequence(written) and len(value) == len(written):
        for index, (part, part_written) in enumerate(zip(value, written, strict=True)):
            refuse_merged_keys(part, part_written, f"{path}[{index}]")


def _merged(value: Any, written: Any, path: str) -> UndecodableError:
    reason = f"{len(written)} keys are read as {len(value)}: {shortened(list(value))}. Each key may be there once"
    return UndecodableError(f"{reason}, at {path}.", path=path, reason=reason)


def _written_fields(record: Any, written: Any) -> list[tuple[str, Any]]:
    """The fields of a record that are in the JSON, by the names that they have in the class."""
    fields = fields_of(record)
    if is_sequence(written):
        return list(zip(fields, written, strict=False))
    if not is_mapping(written):
        return []
    names = {**dict(zip(fields, fields, strict=True)), **_other_names(type(record))}
    return [(name, written[known]) for known, name in names.items() if known in written]


def _other_names(cls: Any) -> dict[str, str]:
    """Fields by their names in JSON, where those are others than in the class."""
    encoded = getattr(cls, "__struct_encode_fields__", None)
    if encoded is not None:
        return dict(zip(encoded, cls.__struct_fields__, strict=True))
    declared: Any = getattr(cls, "__pydantic_fields__", None) or {}
    if not is_class(cls) or not is_mapping(declared):
        return {}
    aliases = [(getattr(field, "validation_alias", None) or field.alias, name) for name, field in declared.items()]
    return {alias: name for alias, name in aliases if isinstance(alias, str)}
