"""Which context each kind of handler gets, and whether a handler's second parameter is one.

Annotations are looked at when the class is defined, when not every name in them exists yet, or ever does (`if
TYPE_CHECKING:`). So an annotation that cannot be resolved is judged by its name, and by that of the parameter.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from durably.actors.definition.scope import Scope
from durably.actors.handlers import Handler, HandlerKind
from durably.actors.transport import Transport
from durably.actors.values.descriptions import named
from durably.actors.values.type_checks import is_class
from durably.errors import DefinitionError

CONTEXTS: Mapping[tuple[str, HandlerKind], tuple[str, ...]] = {
    ("service", "service"): ("Context",),
    ("object", "exclusive"): ("ObjectContext", "SharedContext", "Context"),
    ("object", "shared"): ("SharedContext", "Context"),
    ("workflow", "workflow"): ("WorkflowContext", "SharedWorkflowContext", "ObjectContext", "SharedContext", "Context"),
    ("workflow", "shared"): ("SharedWorkflowContext", "SharedContext", "Context"),
}
"""The contexts that a handler of each kind of actor may be annotated with; the first is the one that it gets."""
CONTEXT_NAMES = frozenset(name for names in CONTEXTS.values() for name in names)
WIDER_NAMES = frozenset(("Any", "Caller", "object"))
PARAMETER_NAMES = frozenset(("ctx", "context", ""))
"""What a context is called, underscores aside."""
DESCRIBED: Mapping[tuple[str, HandlerKind], str] = {
    ("service", "service"): "a service",
    ("object", "exclusive"): "an exclusive handler",
    ("object", "shared"): "a shared handler",
    ("workflow", "workflow"): "the run of a workflow",
    ("workflow", "shared"): "a shared handler of a workflow",
}

Verdict = Literal["context", "unknown", "something else"]
VERDICTS: tuple[Verdict, ...] = ("context", "unknown", "something else")


def check_context(
    actor: type, actor_kind: str, handler_kind: HandlerKind, handler: Handler[Any, Any], scope: Scope
) -> None:
    """Refuse a handler whose second parameter is not its context, or the context of another kind.

    Raises:
        DefinitionError: says what to write.
    """
    kind = (actor_kind, handler_kind)
    parameter = list(inspect.signature(handler.function).parameters.values())[1]
    gets = CONTEXTS[kind][0]
    if parameter.annotation is parameter.empty:
        verdict: Verdict = "unknown"
    else:
        annotation = _resolved(parameter.annotation, scope)
        name = _last_name(annotation)
        if name in CONTEXT_NAMES and name not in CONTEXTS[kind]:
            raise DefinitionError(
                f"The context of {named(actor)}.{handler.attribute} is annotated {name}, and {DESCRIBED[kind]} gets "
                f"{gets}. Write `ctx: {gets}`, or change the decorator."
            )
        verdict = _verdict(annotation)
    if verdict == "something else" or (verdict == "unknown" and parameter.name.strip("_") not in PARAMETER_NAMES):
        raise DefinitionError(
            f"{named(actor)}.{handler.attribute} has no context: its second parameter is `{parameter}`. Every handler "
            f"takes one before its arguments, used or not. Write `async def {handler.attribute}(self, ctx: {gets}, "
            "...)`."
        )


def _resolved(annotation: Any, scope: Scope) -> Any:
    """The type that an annotation means, or its text if its names are not known here and now."""
    try:
        return scope.resolve({"ctx": annotation}, "")["ctx"]
    except DefinitionError:
        return annotation


def _last_name(annotation: Any) -> str:
    written = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return str(written).strip("'\" ").rpartition(".")[2]


def _verdict(annotation: Any) -> Verdict:
    if isinstance(annotation, str):
        return "context" if _last_name(annotation) in CONTEXT_NAMES | WIDER_NAMES else "unknown"
    if annotation is Any or annotation is object or isinstance(annotation, TypeVar):
        return "unknown"
    origin = get_origin(annotation)
    if origin is Annotated:
        return _verdict(get_args(annotation)[0])
    if origin in (Union, UnionType):
        parts = {_verdict(part) for part in get_args(annotation) if part is not type(None)}
        return next(verdict for verdict in VERDICTS if verdict in parts)
    cls: object = annotation if origin is None else origin
    if not is_class(cls):
        return "unknown"
    if issubclass(cls, Transport):
        return "context"
    return "unknown" if getattr(cls, "_is_protocol", False) else "something else"
