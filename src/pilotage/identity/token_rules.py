"""What is checked of a token of an issuer beside its signature. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.identity.types import IssuerSpec, Role, TokenIssuer

MAX_TOKEN = 16_384  # letters
MOST_GROUPS = 1_000
SECOND_US = 1_000_000
ASYMMETRIC = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_HERE = ("127.0.0.1", "localhost", "::1")


def refuse_token(param: str, why: str) -> PilotageError:
    """Return the refusal of a token; ``param`` names what of it is wrong."""
    return PilotageError(
        "invalid_credential",
        f"The token is refused: {why}.",
        hint="Get another from its issuer, or ask which issuers are trusted here",
        param=param,
    )


def is_text(value: object) -> TypeGuard[str]:
    """Say whether a claim is a text that a database stores: no NUL letter, no half of one."""
    return isinstance(value, str) and not _UNSTORABLE.search(value)


def check_issuer(name: str, spec: IssuerSpec) -> IssuerSpec:
    """Return what is said of an issuer; raise ``invalid_request`` for what cannot be."""
    check_name(name)
    check_url(spec.url, "url")
    if not spec.audience:
        raise _bad("audience", "A token must be for somebody: name the audience.")
    wrong = [item for item in spec.algorithms if item not in ASYMMETRIC]
    if wrong or not spec.algorithms:
        raise _bad("algorithms", f"Use some of {', '.join(ASYMMETRIC)}.")
    if not 0 <= spec.skew_us <= 600 * SECOND_US:
        raise _bad("skew", "Clocks may differ by 10 minutes at most.")
    if spec.max_age_us <= 0:
        raise _bad("max_age", "A token must live for some time.")
    if any(item.role is Role.GATEWAY or not item.group for item in spec.roles):
        raise _bad("roles", "A group may have every role but gateway.")
    return spec


def is_read_alike(before: IssuerSpec, after: IssuerSpec) -> bool:
    """Say whether the same tokens still mean the same people in the same groups."""
    return all(
        getattr(before, name) == getattr(after, name)
        for name in ("url", "subject_claim", "groups_claim")
    )


def list_kept(before: IssuerSpec, after: IssuerSpec) -> frozenset[tuple[Role, str]]:
    """Return the roles, with their scopes, that everybody keeps who had them before a change."""
    if not is_read_alike(before, after):
        return frozenset()
    taken = {(item.role, item.scope) for item in set(before.roles) - set(after.roles)}
    return frozenset((item.role, item.scope) for item in after.roles) - taken


def check_not_own(subject: str | None, before: IssuerSpec | None, after: IssuerSpec) -> None:
    """Raise if somebody would decide what their own tokens give them; taking away is free.

    ``subject`` is who they are for an issuer, None for whoever no token speaks of.
    """
    urls = [spec.url for spec in (before, after) if spec]
    if subject is None or not any(subject.startswith(f"{url}|") for url in urls):
        return
    if before and is_read_alike(before, after) and set(after.roles) <= set(before.roles):
        return
    raise PilotageError(
        "permission_denied",
        "Nobody may say what the tokens of their own issuer give.",
        hint="Ask somebody with the role security or admin who is not known by its tokens.",
    )


def check_url(url: str, param: str) -> str:
    """Return an address of an issuer: https, or http on this machine; raise otherwise."""
    try:
        parts = urlsplit(url)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _HERE)
        is_plain = bool(parts.hostname) and not (parts.query or parts.fragment or parts.username)
        _ = parts.port
    except ValueError:
        is_safe = is_plain = False
    if not is_safe or not is_plain:
        raise _bad(param, f"{url[:200]!r} is no https:// address.")
    return url


def check_claims(issuer: TokenIssuer, claims: Mapping[str, Any], now_us: int) -> str:
    """Return the subject of a token whose signature is right; raise unless it is for us, now."""
    if claims.get("iss") != issuer.url:
        raise refuse_token("iss", "another issuer made it")
    _check_audience(issuer, claims)
    _check_times(issuer, claims, now_us)
    subject = claims.get(issuer.subject_claim)
    if not is_text(subject) or not 0 < len(subject) <= 255:
        raise refuse_token(issuer.subject_claim, f"it has no {issuer.subject_claim}")
    return subject


def find_roles(issuer: IssuerSpec, claims: Mapping[str, Any]) -> frozenset[tuple[Role, str]]:
    """Return the roles, with their scopes, that the groups of a token give."""
    groups = claims.get(issuer.groups_claim)
    if isinstance(groups, str):
        groups = [groups]
    if not isinstance(groups, list):
        return frozenset()
    named = {group for group in groups[:MOST_GROUPS] if isinstance(group, str)}
    return frozenset((item.role, item.scope) for item in issuer.roles if item.group in named)


def _check_audience(issuer: IssuerSpec, claims: Mapping[str, Any]) -> None:
    said = claims.get("aud")
    audience: Sequence[Any] = said if isinstance(said, list) else [said]
    if issuer.audience not in audience:
        raise refuse_token("aud", "it is for somebody else")
    party = claims.get("azp")
    if issuer.parties and party not in issuer.parties:
        raise refuse_token("azp", "it was made for a party that is not accepted here")
    if party is None and len(audience) > 1:
        raise refuse_token("azp", "it is for several and does not say who it was made for")


def _check_times(issuer: IssuerSpec, claims: Mapping[str, Any], now_us: int) -> None:
    expires_us = _read_time(claims, "exp")
    if expires_us is None or expires_us + issuer.skew_us <= now_us:
        raise refuse_token("exp", "it has expired" if expires_us else "it never expires")
    begins_us = _read_time(claims, "nbf")
    if begins_us is not None and begins_us - issuer.skew_us > now_us:
        raise refuse_token("nbf", "it is not valid yet")
    issued_us = _read_time(claims, "iat")
    if issued_us is None:
        raise refuse_token("iat", "it does not say when it was made")
    if issued_us - issuer.skew_us > now_us:
        raise refuse_token("iat", "it was made in the future")
    if issued_us + issuer.max_age_us + issuer.skew_us <= now_us:
        raise refuse_token("iat", "it is too old")


def _read_time(claims: Mapping[str, Any], name: str) -> int | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1 << 40:
        return round(float(value) * SECOND_US)
    raise refuse_token(name, f"its {name} is no time")  # NaN comes here too


def _bad(param: str, detail: str) -> PilotageError:
    return PilotageError("invalid_request", detail, param=param)
