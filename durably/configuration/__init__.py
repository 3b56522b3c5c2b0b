"""`durably.toml`: what a deployment says of itself, in one place. `load_configuration` reads it."""

from __future__ import annotations

from durably.configuration.loading import (
    CONFIG_VARIABLE as CONFIG_VARIABLE,
)
from durably.configuration.loading import (
    DEVELOPMENT as DEVELOPMENT,
)
from durably.configuration.loading import (
    ENVIRONMENT_VARIABLE as ENVIRONMENT_VARIABLE,
)
from durably.configuration.loading import (
    FILE_NAME as FILE_NAME,
)
from durably.configuration.loading import (
    PRODUCTION as PRODUCTION,
)
from durably.configuration.loading import (
    load_configuration as load_configuration,
)
from durably.configuration.sections import (
    Admin as Admin,
)
from durably.configuration.sections import (
    Configuration as Configuration,
)
from durably.configuration.sections import (
    Ingress as Ingress,
)
from durably.configuration.sections import (
    Project as Project,
)
from durably.configuration.sections import (
    Pubsub as Pubsub,
)
from durably.configuration.sections import (
    Server as Server,
)
from durably.configuration.sections import (
    Setting as Setting,
)
from durably.configuration.sections import (
    Store as Store,
)
from durably.configuration.sections import (
    Tracing as Tracing,
)
from durably.configuration.tokens import (
    token_of as token_of,
)
from durably.configuration.tokens import (
    tokens_of as tokens_of,
)
