"""Names that people give to things."""

import re

from pilotage.core.errors import PilotageError

SHADOW_TENANT = "shadow"  # whose the copies of calls are: they are on nobody's bill
NO_TENANT = "none"  # how people ask for what belongs to no tenant
LLAMACPP = "llamacpp"  # the engine that every installation has
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_ALIAS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:/-]{0,126}[A-Za-z0-9])?")


def check_name(name: str, param: str = "name") -> str:
    """Return a valid object name; raise ``invalid_request`` that says what one looks like."""
    if not _NAME.fullmatch(name):
        raise PilotageError(
            "invalid_request",
            f"{name!r} is not a name.",
            hint=(
                "Use 1 to 63 lower-case letters, digits, '.', '_' and '-', "
                "beginning and ending with a letter or digit."
            ),
            param=param,
        )
    return name


def check_alias(name: str, param: str = "name") -> str:
    """Return a valid alias, the model name of clients: ``smollm2`` or ``team/chat:small``."""
    if not _ALIAS.fullmatch(name):
        raise PilotageError(
            "invalid_request",
            f"{name!r} is not a model name.",
            hint="Use 1 to 128 letters, digits, '.', '_', ':', '/' and '-'.",
            param=param,
        )
    return name
