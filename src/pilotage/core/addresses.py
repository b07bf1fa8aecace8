"""Addresses, references and paths that people give: each checked, and kept in one written form."""

import re
from collections.abc import Callable, Mapping
from urllib.parse import SplitResult, urlsplit

from pilotage.core.errors import PilotageError
from pilotage.core.regions import check_location

NOTICE_PREFIX = "PILOTAGE_NOTICE_"  # of the variables that channels of notices may name
_LONGEST = 1000
_VARIABLE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_FILE = re.compile(r"/[^\x00-\x1f\x7f]{1,999}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,126}")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9a-fA-F:.]+")
_PROVIDERS = ("openai.com", "anthropic.com", "googleapis.com")  # with every host below them


def check_model(name: str) -> str:
    """Return a provider's own name of a model; raise ``invalid_request`` if it can be none."""
    if not _MODEL.fullmatch(name):
        raise _refuse(
            "model",
            f"{name[:80]!r} is no model of an upstream.",
            "Write it as the provider does, for example gpt-4o-mini or google/gemini-2.5-flash.",
        )
    return name


def check_base_url(text: str) -> str:
    """Return an address without its last slash; raise ``invalid_request`` for what is none."""
    example = "Write it as https://HOST/PATH, for example https://api.openai.com/v1."
    parts = _split(text)
    if parts is None or parts.scheme not in ("http", "https") or not _has_host(parts):
        raise _refuse("base_url", "The address is no http:// or https:// address.", example)
    if "@" in parts.netloc:
        raise _refuse(
            "base_url",
            "The address holds a credential.",
            "Take it out and name it with secret: env:NAME or file:PATH.",
        )
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        raise _refuse(
            "base_url",
            "The address has a query or a fragment.",
            "Leave out everything from '?' or '#' on.",
        )
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def is_public_provider(base_url: str) -> bool:
    """Say whether an address in its one written form is that of a provider outside the house."""
    host = (urlsplit(base_url).hostname or "").rstrip(".")
    return any(host == name or host.endswith(f".{name}") for name in _PROVIDERS)


def check_proxy(text: str) -> str:
    """Return a proxy, a reference to one, or ""; raise ``invalid_request`` for what is none.

    A proxy that wants a credential is named by a reference: its address holds it.
    """
    if not text or _is_reference(text):
        return text
    parts = _split(text)
    is_address = parts is not None and parts.scheme == "http" and _has_host(parts)
    if parts is None or not is_address or "@" in parts.netloc or not _is_bare(parts):
        raise _refuse(
            "proxy",
            "That is no proxy.",
            "Write http://HOST:PORT; one that wants a credential as env:NAME or file:/PATH, "
            "which holds http://USER:PASSWORD@HOST:PORT.",
        )
    return f"http://{parts.netloc.lower()}"


def check_secret(reference: str) -> str:
    """Return a reference to a secret, or ""; raise ``invalid_request`` for anything else.

    What is refused is never shown: it may be the secret itself.
    """
    if reference and not _is_reference(reference):
        raise _refuse(
            "secret",
            "The secret is no reference: secrets themselves are not kept here.",
            "Give the secret to the gateway in a variable or a file and write env:NAME, "
            "for example env:OPENAI_API_KEY, or file:/PATH (absolute).",
        )
    return reference


def check_notice_secret(reference: str, param: str = "secret") -> str:
    """Return a reference to what a channel of notices may send, or ""; raise ``invalid_request``.

    Whoever sets a channel up chooses where a secret is sent: only variables made for that are.
    """
    check_secret(reference)
    if reference.startswith("env:") and not reference.startswith(f"env:{NOTICE_PREFIX}"):
        raise _refuse(
            param,
            f"The variable {reference.removeprefix('env:')} is not meant to be sent anywhere.",
            f"Have its name begin with {NOTICE_PREFIX}, for example env:{NOTICE_PREFIX}HOOK.",
        )
    return reference


def check_secret_kind(provider: str, secret: str) -> None:
    """Raise ``invalid_request`` for a secret of a kind that a provider does not take."""
    if provider == "vertex" and secret.startswith("env:"):
        raise _refuse(
            "secret",
            "Vertex AI takes no key from a variable: its tokens are made from credentials.",
            "Write file:/PATH of a credentials file, or leave it out for the default ones.",
        )


def check_ca_file(path: str) -> str:
    """Return an absolute path, or ""; raise ``invalid_request`` for what is none."""
    if path and not _FILE.fullmatch(path):
        raise _refuse(
            "ca_file", f"{path[:80]!r} is no absolute path.", "Write the whole path: /PATH/ca.pem."
        )
    return path


def check_place(location: str) -> str:
    """Return where an upstream runs, or ""; raise ``invalid_request`` for what is no location."""
    return check_location(location) if location else ""


CHECKS: Mapping[str, Callable[[str], str]] = {  # by the field of an upstream
    "base_url": check_base_url,
    "secret": check_secret,
    "location": check_place,
    "proxy": check_proxy,
    "ca_file": check_ca_file,
}


def _is_reference(text: str) -> bool:
    kind, _, path = text.partition(":")
    return bool(_VARIABLE.fullmatch(text)) or (kind == "file" and bool(_FILE.fullmatch(path)))


def _is_bare(parts: SplitResult) -> bool:
    """Say whether an address is host and port and nothing else."""
    return parts.port is not None and not (parts.path.strip("/") or parts.query or parts.fragment)


def _split(text: str) -> SplitResult | None:
    """Return the parts of an address, None if it is none."""
    if len(text) > _LONGEST or not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        parts = urlsplit(text)
        is_there = parts.port is None or parts.port > 0  # the port is read when it is asked for
    except ValueError:
        return None
    return parts if is_there else None


def _has_host(parts: SplitResult) -> bool:
    return bool(parts.hostname and _HOST.fullmatch(parts.hostname))


def _refuse(param: str, problem: str, hint: str) -> PilotageError:
    return PilotageError("invalid_request", f"{param}: {problem}", hint=hint, param=param)
