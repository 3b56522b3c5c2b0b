"""`ActionSpan`: the span of an action while it runs, which is told later. It takes the attributes that code sets.

So what calls a language model says `gen_ai.operation.name`, `gen_ai.usage.input_tokens` and the like on the current
span, as it would anywhere, and they are those of the command.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.trace import NonRecordingSpan, SpanContext
from opentelemetry.util.types import AttributeValue

ATTRIBUTES_LIMIT: Final = 128
CHARACTERS_LIMIT: Final = 4_096


class ActionSpan(NonRecordingSpan):
    """Of one attempt of an action."""

    def __init__(self, context: SpanContext) -> None:
        super().__init__(context)
        self.attributes = BoundedAttributes(ATTRIBUTES_LIMIT, immutable=False, max_value_len=CHARACTERS_LIMIT)

    def is_recording(self) -> bool:
        return bool(self.get_span_context().trace_flags.sampled)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        if self.is_recording():
            self.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)
