"""From the settings to a store of counters."""

from pilotage.gateway.counters.memory import MemoryStore
from pilotage.gateway.ports import CounterStore
from pilotage.kit.clock import Clock
from pilotage.kit.config import CounterSettings, duration_s, resolve_secret
from pilotage.kit.kv_valkey import ValkeyLink, parse_valkey_url


def open_store(settings: CounterSettings, clock: Clock) -> CounterStore:
    """Return the store that the settings name; it connects when it is first asked.

    Raises ``invalid_config`` if the password cannot be found or the extra is not installed.
    """
    if settings.url == "memory":
        return MemoryStore(clock)
    from pilotage.gateway.counters.valkey import ValkeyStore

    address = parse_valkey_url(settings.url)._replace(
        password=resolve_secret(settings.password) if settings.password else "",
        ca_file=settings.ca_file,
    )
    return ValkeyStore(ValkeyLink(address, clock, duration_s(settings.timeout)))
