"""The headers that the ingress and the client exchange: their names stand here once."""

from __future__ import annotations

from typing import Final

IDEMPOTENCY_KEY: Final = "idempotency-key"
INVOCATION_ID: Final = "x-restate-id"
ERROR_SOURCE: Final = "x-restate-error-source"
"""Of a failure: `invocation` or `ingress`."""
RETRY_AFTER: Final = "retry-after"

ACCEPTED: Final = "x-durably-accepted"
NOTHING_ACCEPTED: Final = "no"
"""Its value where the request has had no effect, so that it can be sent again as it is."""
TYPED_ERRORS: Final = "x-durably-errors"
"""With it a request asks for the classes and fields of errors, beside what Restate's clients read of them."""
TIMEOUT: Final = "x-durably-timeout"
"""How long an invocation may take, as a duration."""
TRIGGERED_BY: Final = "durably-triggered-by"
"""Within a process it tells a transition which handler calls it; a request from outside cannot claim it."""
