"""What is wrong with the address of a service that settings name, told without showing it."""

from urllib.parse import parse_qs, urlsplit

FINE = ("", "")


def find_counters_flaw(url: str) -> tuple[str, str]:
    """Say what is wrong with where limits are counted, and how to mend it."""
    try:
        parts = urlsplit(url)
        has_more = parts.query or (parts.username or parts.password)
        is_server = parts.scheme in ("valkey", "valkeys") and parts.hostname and parts.port != 0
        is_address = bool(is_server) and (parts.path.strip("/") or "0").isdecimal()
    except ValueError:
        has_more, is_address = "", False
    if has_more:
        return (
            "holds more than host, port and database",
            "Set counters.password to env:NAME or file:PATH.",
        )
    if is_address:
        return FINE
    return (
        "must be 'memory' or valkey://HOST:PORT/DB",
        "For example valkey://127.0.0.1:6379/0, or valkeys:// with TLS.",
    )


def find_database_flaw(url: str) -> tuple[str, str]:
    """Say what is wrong with where the database is, and how to mend it."""
    if url == "sqlite":
        return FINE
    try:
        parts = urlsplit(url)
        has_password = parts.password is not None or "password" in parse_qs(parts.query)
        is_address = parts.scheme == "postgresql" and parts.port != 0
    except ValueError:
        has_password = is_address = False
    if has_password:
        return "holds a password", "Take it out and set database.password to env:NAME or file:PATH."
    if is_address:
        return FINE
    return (
        "must be 'sqlite' or postgresql://USER@HOST:PORT/NAME",
        "For example postgresql://pilotage@127.0.0.1:5432/pilotage.",
    )


def find_reference_flaw(reference: str) -> tuple[str, str]:
    """Say what is wrong with a secret that is given by reference, and how to mend it."""
    if not reference or reference.startswith(("env:", "file:")):
        return FINE
    return "must be a reference", "Write env:NAME or file:PATH."
