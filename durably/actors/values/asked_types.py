"""Whether a value can be of the type that is asked for, where the Serde of a declaration has read it.

Only the outermost class is looked at, and what cannot be told passes: the Serde has decided what the value is.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from durably.actors.values.descriptions import MISSING
from durably.actors.values.type_checks import is_class
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass


def can_be(value: object, annotation: Any) -> bool:
    """False where the value is certainly none of this type."""
    if annotation in (MISSING, Any, object) or isinstance(annotation, str | TypeVar):
        return True
    if annotation is None:
        return value is None
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(can_be(value, one) for one in arguments)
    if origin is Annotated:
        return can_be(value, arguments[0])
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    aliased = getattr(annotation, "__value__", getattr(annotation, "__supertype__", MISSING))
    if aliased is not MISSING:  # A `type` statement, or a NewType.
        return can_be(value, aliased)
    return _is_instance(value, origin or annotation)


def _is_instance(value: object, cls: Any) -> bool:
    if not is_class(cls):
        return True
    if isinstance(value, bool) and cls is int:
        return False
    if isinstance(value, int) and cls is float:
        return True
    try:
        return isinstance(value, cls) or (cls is NoneType and value is None)
    except USER_ERRORS as error:  # A protocol that is not for checks at run time, or a metaclass of the user's.
        let_signals_pass(error)
        return True
