"""What has to be known of a type before its values can be encoded, found in one walk over its parts.

The same walk refuses what JSON cannot express, with a sentence, so that it is found when a class is bound.
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar, get_origin

from msgspec import inspect as shapes

from durably.actors.values.descriptions import named
from durably.actors.values.messages import HOW_TO_WRITE, is_message_class
from durably.actors.values.models import features_of_model, frozen_model_annotations, is_model_class
from durably.errors import DefinitionError

_IMMUTABLE = (
    shapes.NoneType,
    shapes.BoolType,
    shapes.IntType,
    shapes.FloatType,
    shapes.StrType,
    shapes.BytesType,
    shapes.DateTimeType,
    shapes.TimeType,
    shapes.DateType,
    shapes.TimeDeltaType,
    shapes.UUIDType,
    shapes.DecimalType,
    shapes.LiteralType,
)
_MUTABLE_LEAVES = (shapes.ByteArrayType, shapes.MemoryViewType)
_UNFIT_AS_KEYS = (
    shapes.NoneType,
    shapes.BoolType,
    shapes.CollectionType,
    shapes.TupleType,
    shapes.DictType,
    shapes.StructType,
    shapes.DataclassType,
    shapes.NamedTupleType,
    shapes.TypedDictType,
    shapes.CustomType,
)
_SPELLED_ONCE = (shapes.StrType, shapes.IntType, shapes.AnyType)


class Features:
    """What decides which codec a type gets."""

    FORMAT: ClassVar[str] = "JSON"

    def __init__(self) -> None:
        self.immutable: bool = True
        self.unordered = False
        """Holds a set somewhere."""
        self.open = False
        """Holds `Any` somewhere, so that anything may come."""
        self.recursive = False
        """Holds itself somewhere, so that its values may be nested however deep."""
        self.has_floats = False
        """Holds floats somewhere, and NaN is written like None."""
        self.excludes = False
        """Holds a pydantic model with fields that are not written."""
        self.spelled_keys = False
        """Holds a dict whose keys have several spellings in JSON, such as `1` and `1.0`."""
        self._seen: set[Any] = set()
        self._within: list[type] = []

    def visit(self, shape: shapes.Type, name: str) -> None:
        match shape:
            case shapes.Metadata():
                self.visit(shape.type, name)
            case shapes.AnyType():
                self.open, self.immutable = True, False
            case shapes.FloatType():
                self.has_floats = True
            case shapes.UnionType():
                for part in shape.types:
                    self.visit(part, name)
            case shapes.SetType() | shapes.FrozenSetType():
                self.unordered = True
                self.immutable = self.immutable and isinstance(shape, shapes.FrozenSetType)
                self.visit(shape.item_type, name)
            case shapes.VarTupleType():
                self.visit(shape.item_type, name)
            case shapes.TupleType():
                for part in shape.item_types:
                    self.visit(part, name)
            case shapes.ListType() | shapes.CollectionType():
                self.immutable = False
                self.visit(shape.item_type, name)
            case shapes.DictType():
                self.immutable = False
                self._refuse_keys(shape.key_type, name)
                self.spelled_keys = self.spelled_keys or not isinstance(shape.key_type, _SPELLED_ONCE)
                self.visit(shape.key_type, name)
                self.visit(shape.value_type, name)
            case shapes.StructType() | shapes.DataclassType() | shapes.NamedTupleType() | shapes.TypedDictType():
                self._visit_class(shape, name)
            case shapes.EnumType():
                self._refuse_flags(shape.cls, name)
            case shapes.CustomType():
                self._visit_custom(shape.cls, name)
            case _ if isinstance(shape, _MUTABLE_LEAVES):
                self.immutable = False
            case _:
                self.immutable = self.immutable and isinstance(shape, _IMMUTABLE)

    def _visit_class(
        self, shape: shapes.StructType | shapes.DataclassType | shapes.NamedTupleType | shapes.TypedDictType, name: str
    ) -> None:
        cls: Any = get_origin(shape.cls) or shape.cls  # Of `Box[int]`, `Box`.
        if isinstance(shape, shapes.StructType):
            self.immutable = self.immutable and bool(cls.__struct_config__.frozen)
        elif isinstance(shape, shapes.DataclassType):
            parameters = getattr(cls, "__dataclass_params__", None)  # attrs classes have none
            self.immutable = self.immutable and bool(getattr(parameters, "frozen", False))
        elif isinstance(shape, shapes.TypedDictType):
            self.immutable = False
        if shape.cls in self._seen:
            self.recursive = self.recursive or shape.cls in self._within
            return
        self._seen.add(shape.cls)
        self._within.append(shape.cls)
        for field in shape.fields:
            self.visit(field.type, name)
        self._within.pop()

    def _refuse_keys(self, key: shapes.Type, name: str) -> None:
        kinds = key.types if isinstance(key, shapes.UnionType) else (key,)
        if any(isinstance(kind, _UNFIT_AS_KEYS) for kind in kinds):
            raise DefinitionError(
                f"{name} cannot be stored and sent as JSON, where the keys of a dict are strings (numbers, enums, "
                "dates and UUIDs are written as such). Use such a key, or a list of pairs."
            )

    def _refuse_flags(self, cls: type[enum.Enum], name: str) -> None:
        if issubclass(cls, enum.Flag):
            raise DefinitionError(
                f"{name} cannot be stored and sent: {named(cls)} is a flag, and its combinations have no name. "
                "Use a set of an Enum, or an int."
            )

    def _visit_custom(self, cls: type, name: str) -> None:
        if is_message_class(cls):
            raise DefinitionError(
                f"{name} cannot be stored and sent as {self.FORMAT}: {named(cls)} is a protobuf message. "
                f"{HOW_TO_WRITE}. Several messages go into one that holds them."
            )
        if not is_model_class(cls):
            raise DefinitionError(
                f"{name} cannot be stored and sent as {self.FORMAT}: nothing is known of the fields of {named(cls)}. "
                "Make it a dataclass, a msgspec Struct or a pydantic model, or pass a Serde of your own where one "
                "can be given."
            )
        model = features_of_model(cls)
        self.unordered = self.unordered or model.has_sets
        self.open = self.open or model.is_open
        self.recursive = self.recursive or model.is_recursive
        self.has_floats = self.has_floats or model.has_floats
        self.excludes = self.excludes or model.excludes
        self.spelled_keys = self.spelled_keys or model.spelled_keys
        if cls not in self._seen:
            self._seen.add(cls)
            self.immutable = self.immutable and self._model_is_immutable(cls)

    def _model_is_immutable(self, cls: type) -> bool:
        annotations = frozen_model_annotations(cls)
        if annotations is None:
            return False
        parts = Features()
        parts._seen = self._seen
        try:
            for annotation in annotations:
                parts.visit(shapes.type_info(annotation), "")
        except (TypeError, ValueError):  # A type that only pydantic knows: who knows whether it can change.
            return False
        return parts.immutable
