"""Which addresses may be called from here: one policy for every URL that somebody can configure.

A host is resolved once, here, and whoever calls connects to the address that was judged, so that a
name cannot point elsewhere a moment later. Link-local, metadata, multicast and unspecified
addresses are never called; private and loopback ones only when the operator named them; public
ones unless the operator listed what may be called. This module knows no HTTP client.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, best first; raises OSError if there are none."""

LOOKUP_TIMEOUT_S = 5.0
KEPT_S = 30.0  # the time to live of a DNS answer is not told by the system's resolver
MAX_KEPT = 1024


class EgressPolicy:
    """The rules of one installation, and the addresses that its hosts have.

    ``allow`` is the setting ``egress.allow``; raises ``invalid_config`` for one that cannot be
    read. Belongs to one event loop.
    """

    def __init__(
        self,
        allow: str,
        clock: Clock,
        *,
        lookup: Lookup | None = None,
        timeout_s: float = LOOKUP_TIMEOUT_S,
    ) -> None:
        self._rules = EgressRules.parse(allow)
        self._clock = clock
        self._lookup = lookup or look_up
        self._timeout_s = timeout_s
        self._kept: dict[tuple[str, int], tuple[float, tuple[str, ...]]] = {}
        self._pending: dict[tuple[str, int], asyncio.Future[None]] = {}

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """Return the addresses of a host that may be called, best first; there is at least one.

        Raises ``egress_denied``, TimeoutError, or OSError for a name that has no address.
        """
        where = (normalise_host(host), port)
        while True:
            kept = self._kept.get(where)
            if kept is not None and self._clock.monotonic_s() < kept[0]:
                return kept[1]
            pending = self._pending.get(where)
            if pending is None:
                return await self._ask(where)
            await asyncio.shield(pending)  # somebody asks already; raises what that one gets

    def check_name(self, host: str, port: int) -> None:
        """Judge a host that somebody else will resolve (a proxy); raise ``egress_denied``."""
        name = normalise_host(host)
        reason = self._rules.judge_name(name, port)
        if reason:
            raise _denied(name, port, reason)

    def forget(self, host: str, port: int) -> None:
        """Ask for a host's addresses again next time: none of them answered."""
        self._kept.pop((normalise_host(host), port), None)

    async def _ask(self, where: tuple[str, int]) -> tuple[str, ...]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending[where] = done
        try:
            found = await self._find(*where)
        except (OSError, PilotageError) as failed:  # TimeoutError is an OSError
            done.set_exception(failed)
            done.exception()  # nobody may be waiting
            raise
        finally:
            del self._pending[where]
            if not done.done():  # found, or cancelled: whoever waits looks again
                done.set_result(None)
        return found

    async def _find(self, host: str, port: int) -> tuple[str, ...]:
        self._rules.check(host, port)
        literal = _read_address(host)
        if literal is not None:
            addresses: Sequence[str] = [host]
        else:
            async with asyncio.timeout(self._timeout_s):
                addresses = await self._lookup(host, port)
        allowed, reason = [], "it has no address"
        for address in addresses:
            found = self._rules.judge_address(host, port, ip_address(address))
            if not found:
                allowed.append(address)
            elif reason != found:
                reason = found
        if not allowed:
            raise _denied(host, port, reason)
        if len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        kept = tuple(dict.fromkeys(allowed))
        self._kept[host, port] = (self._clock.monotonic_s() + KEPT_S, kept)
        return kept


class Entry(NamedTuple):
    """One part of ``egress.allow``: a host, a network, or a suffix with its dot ("." is all).

    ``port`` 0 is any.
    """

    host: str = ""
    suffix: str = ""
    network: Network | None = None
    port: int = 0


class EgressRules:
    """What ``egress.allow`` says: hosts, ``*.suffix``, networks, each with or without ``:PORT``.

    ``*`` is every public address, as is an empty list. A named host or network may be private or
    loopback; what only a suffix matches must be public, since anybody below the suffix chooses it.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = tuple(entries)

    @classmethod
    def parse(cls, allow: str) -> "EgressRules":
        """Read the setting; raise ``invalid_config``."""
        return cls([_parse_entry(word) for word in re.split(r"[,\s]+", allow) if word])

    def check(self, host: str, port: int) -> None:
        """Refuse, before anything is asked of a name server, what can never be allowed."""
        if not 0 < port < 65536:
            raise _denied(host, port, "there is no such port")
        reason = _find_flaw(host)
        if not reason and self._entries and not any(e.network for e in self._entries):
            reason = "" if self._names(host, port) or self._covers(host, port) else _NOT_NAMED
        if reason:
            raise _denied(host, port, reason)

    def foresee(self, host: str, port: int) -> None:
        """Refuse, without asking a name server, what :class:`EgressPolicy` is sure to refuse."""
        name = normalise_host(host)
        self.check(name, port)
        if _read_address(name) is None and any(entry.network for entry in self._entries):
            return  # its address may be in a network that is named
        reason = self.judge_name(name, port)
        if reason:
            raise _denied(name, port, reason)

    def judge_name(self, host: str, port: int) -> str:
        """Say why a name may not be called whose address nobody here knows, "" if it may."""
        literal = _read_address(host)
        if literal is not None:
            return self.judge_address(host, port, literal)
        reason = _find_flaw(host)
        if reason or self._names(host, port):
            return reason
        if host == "localhost" or host.endswith(".localhost"):
            return _NOT_PUBLIC
        return "" if not self._entries or self._covers(host, port) else _NOT_NAMED

    def judge_address(self, host: str, port: int, address: Address) -> str:
        """Say why an address of a host may not be called, "" if it may; hosts are normalised."""
        if flaw := _find_flaw(host):
            return flaw
        address = _unwrap(address)
        if _is_never_called(address):
            return _FORBIDDEN
        if self._names(host, port, address):
            return ""
        if not is_public(address):
            return _NOT_PUBLIC
        return "" if not self._entries or self._covers(host, port) else _NOT_NAMED

    def _names(self, host: str, port: int, address: Address | None = None) -> bool:
        for entry in self._entries:
            if entry.port not in (0, port):
                continue
            if entry.host == host != "":
                return True
            if address is not None and entry.network and address in entry.network:
                return True
        return False

    def _covers(self, host: str, port: int) -> bool:
        return any(
            entry.port in (0, port) and (entry.suffix == "." or host.endswith(entry.suffix))
            for entry in self._entries
            if entry.suffix
        )


async def look_up(host: str, port: int) -> list[str]:
    """Ask the system's resolver."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


def is_public(address: Address) -> bool:
    """Say whether an address is one of the whole internet's."""
    address = _unwrap(address)
    return address.is_global and not address.is_multicast


def normalise_host(host: str) -> str:
    """Return a host in the one spelling that rules are compared with."""
    host = host.lower().removesuffix(".")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    address = _read_address(host)
    return str(address) if address is not None else host


_FORBIDDEN = "its address is link-local, multicast, reserved or a metadata service's"
_NOT_PUBLIC = "its address is not public, and not named in egress.allow"
_NOT_NAMED = "it is not named in egress.allow"
_ODD = "this is no plain spelling of a host name or an address"

_METADATA_HOSTS = ("metadata", "metadata.google.internal", "metadata.goog", "instance-data")
_METADATA_SUFFIXES = (".metadata.google.internal", ".metadata.goog", "instance-data.ec2.internal")
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # as the last label: an address in an odd spelling

_NEVER = [
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "224.0.0.0/4",
        "240.0.0.0/4",
        "100.100.100.200/32",  # metadata: Alibaba
        "168.63.129.16/32",  # metadata: Azure
        "192.0.0.192/32",  # metadata: Oracle
        "::/96",  # unspecified, and IPv4 in a form long obsolete; ::1 is an exception
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
        "fd00:ec2::/32",  # metadata: Amazon
        "fd20:ce::254/128",  # metadata: Google
        "fd00:42::42/128",  # metadata: Scaleway
        "2001::/32",  # Teredo and 6to4: tunnels to IPv4 addresses nobody has judged
        "2002::/16",
        "64:ff9b:1::/48",
    )
]
_NAT64 = ip_network("64:ff9b::/96")
_LOOPBACK6 = IPv6Address("::1")


def _is_never_called(address: Address) -> bool:
    return address != _LOOPBACK6 and any(address in network for network in _NEVER)


def _unwrap(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, else the address."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _read_address(host: str) -> Address | None:
    try:
        return None if "%" in host else ip_address(host)
    except ValueError:
        return None


def _find_flaw(host: str) -> str:
    """Say what is wrong with a normalised host whatever the rules are."""
    if _read_address(host) is not None:
        return ""
    if not _HOST.fullmatch(host) or _NUMBER.fullmatch(host.rpartition(".")[2]):
        return _ODD
    if host in _METADATA_HOSTS or host.endswith(_METADATA_SUFFIXES):
        return _FORBIDDEN
    return ""


def _denied(host: str, port: int, reason: str) -> PilotageError:
    hint = (
        "Name it in the gateway's settings (egress.allow, or PILOTAGE_EGRESS_ALLOW; a * in the "
        "list is every public address) and start the gateway again."
    )
    if reason == _FORBIDDEN:
        hint = "No entry of the setting egress.allow opens it."
    return PilotageError(
        "egress_denied", f"{host[:255]}:{port} may not be called from here: {reason}.", hint=hint
    )


def _parse_entry(word: str) -> Entry:
    if word == "*":
        return Entry(suffix=".")
    try:
        return Entry(network=_parse_network(word))
    except ValueError:
        host, port = _split_port(word)
    address = _read_address(host.removeprefix("[").removesuffix("]"))
    if address is not None:
        return Entry(network=_parse_network(str(_unwrap(address))), port=port)
    name = host.lower().removeprefix("*.").removesuffix(".")
    if _find_flaw(name) == _ODD:
        raise _bad_entry(word)
    if _find_flaw(name):
        raise PilotageError("invalid_config", f"egress.allow: {word} is never called.")
    return Entry(suffix="." + name, port=port) if host.startswith("*.") else Entry(name, port=port)


def _parse_network(word: str) -> Network:
    network = ip_network(word)
    if network[0] != _LOOPBACK6 and any(_lies_within(network, never) for never in _NEVER):
        raise PilotageError("invalid_config", f"egress.allow: {word} is never called.")
    return network


def _lies_within(inner: Network, outer: Network) -> bool:
    return inner[0] in outer and inner[-1] in outer


def _split_port(word: str) -> tuple[str, int]:
    host, colon, text = word.rpartition(":")
    if not colon:
        return word, 0
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise _bad_entry(word)
    return host, int(text)


def _bad_entry(word: str) -> PilotageError:
    return PilotageError(
        "invalid_config",
        f"egress.allow: {word!r} is no host, network or address.",
        hint="Write api.openai.com, *.googleapis.com, 10.1.2.0/24 or 127.0.0.1:9000.",
    )
