"""Names of a file of models in Python: `paymentReference` is `payment_reference`, `BookDelivery` `book_delivery`.

On the wire they are in camel case, so a name in Python has to lead back to the one in the file.
"""

from __future__ import annotations

import keyword
import re
from typing import Final

from durably.actors.machines.model import camel

UPPER_NAME: Final = re.compile(r"[A-Z][A-Za-z0-9]*")
LOWER_NAME: Final = re.compile(r"[a-z][A-Za-z0-9]*")
_WORD_BORDER: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_TYPES: Final = {"String": "str", "Int": "int", "Decimal": "Decimal", "Bool": "bool"}
OPTIONAL: Final = "Optional"
TYPE_NAMES: Final = (*_TYPES, OPTIONAL)


def snake(name: str) -> str:
    """The name of an attribute or module; a keyword of Python gets a '_' behind it."""
    found = _WORD_BORDER.sub("_", name).lower()
    return f"{found}_" if keyword.iskeyword(found) else found


def written_plainly(name: str) -> str:
    """The name as it would have to be for Python's to lead back to it: `trackingUrl` for `trackingURL`."""
    plain = camel(_WORD_BORDER.sub("_", name).lower())
    return plain[:1].upper() + plain[1:] if name[:1].isupper() else plain


def python_type(name: str) -> str:
    """The type that `String` and its kind are."""
    return _TYPES[name]


def fields_class(state: str) -> str:
    """The mixin with the fields of a state that others take over."""
    return f"{state}Fields"


def machine_class(model: str) -> str:
    """The abstract machine of a model."""
    return f"{model}Machine"
