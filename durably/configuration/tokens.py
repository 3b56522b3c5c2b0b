"""`tokens_of` a section, from its value and its file, and the `token_of` a client, checked before they are needed."""

from __future__ import annotations

from pathlib import Path

from durably.configuration.sections import Admin, Ingress
from durably.errors import ConfigurationError


def tokens_of(section: Ingress | Admin | None) -> tuple[str, ...]:
    """All tokens that are good. None where the section names none.

    Raises:
        ConfigurationError: a file cannot be read, or holds none, or one can be in no header.
    """
    if section is None:
        return ()
    tokens = [] if section.token is None else [section.token]
    if section.token_file is not None:
        tokens += _in_file(section.token_file)
    for token in tokens:
        _check(token, section)
    return tuple(tokens)


def token_of(section: Ingress | Admin | None) -> str | None:
    """The token that a client brings: the value, else the first in the file. None where the section names none.

    Where there is a value, the file is not read: it may be for the eyes of the server alone.

    Raises:
        ConfigurationError: the file cannot be read, or holds none, or the token can be in no header.
    """
    if section is None or section.token is None:
        return next(iter(tokens_of(section)), None)
    _check(section.token, section)
    return section.token


def _check(token: str, section: Ingress | Admin) -> None:
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigurationError(
            f"A token of [{type(section).__name__.lower()}] has characters in it that no header may have. Take "
            "printable ASCII without spaces, such as what `openssl rand -hex 32` prints."
        )


def _in_file(name: str) -> list[str]:
    try:
        lines = [line.strip() for line in Path(name).read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise ConfigurationError(f"The file of tokens {name} cannot be read: {reason}.") from error
    tokens = [line for line in lines if line and not line.startswith("#")]  # Nobody means a comment to be a token.
    if not tokens:  # Without this, an empty file would open the port to all.
        raise ConfigurationError(f"The file of tokens {name} holds none. Write one a line.")
    return tokens
