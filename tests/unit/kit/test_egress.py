"""What may be called from here, however it is spelled and whatever name servers say."""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import ManualClock
from pilotage.kit.egress import (
    KEPT_S,
    MAX_KEPT,
    EgressPolicy,
    EgressRules,
    is_public,
    normalise_host,
)

PUBLIC, PUBLIC_6 = "93.184.216.34", "2606:2800:220:1::1"


class Names:
    """A name server of our own: it says what it is told to, and counts how often it is asked."""

    def __init__(self, **addresses: Sequence[str]) -> None:
        self.addresses = {name.replace("__", "."): found for name, found in addresses.items()}
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        await self.gate.wait()
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return self.addresses[host]


def policy(allow: str = "", **addresses: Sequence[str]) -> EgressPolicy:
    return EgressPolicy(allow, ManualClock(), lookup=Names(**addresses))


async def refusal(where: EgressPolicy, host: str, port: int = 443) -> PilotageError:
    with pytest.raises(PilotageError) as caught:
        await where.resolve(host, port)
    assert caught.value.code == "egress_denied"
    return caught.value


# What is public, private or never called.


async def test_a_public_host_is_resolved_and_its_addresses_keep_their_order() -> None:
    found = await policy(api__openai__com=[PUBLIC_6, PUBLIC, PUBLIC]).resolve(
        "API.OpenAI.com.", 443
    )
    assert found == (PUBLIC_6, PUBLIC)


def test_a_public_address_is_known_in_every_form() -> None:
    public = [PUBLIC, PUBLIC_6, f"::ffff:{PUBLIC}", f"64:ff9b::{PUBLIC}"]
    assert all(is_public(ip_address(one)) for one in public)
    inside = ["127.0.0.1", "10.1.2.3", "::1", "fd00::1", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3"]
    assert not any(is_public(ip_address(one)) for one in [*inside, "224.0.1.1"])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.10",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "198.18.0.1",
        "::1",
        "fd12:3456::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
    ],
)
async def test_what_is_not_public_is_called_only_when_named(address: str) -> None:
    assert "not public" in (await refusal(policy(models__bank=[address]), "models.bank")).detail
    assert (
        "not public" in (await refusal(policy("*", models__bank=[address]), "models.bank")).detail
    )
    assert (
        "not public"
        in (await refusal(policy("*.bank", models__bank=[address]), "models.bank")).detail
    )
    assert "models.bank:443" in str(await refusal(policy(models__bank=[address]), "models.bank"))
    assert "egress.allow" in str(await refusal(policy(models__bank=[address]), "models.bank"))
    for allow in ("models.bank", "models.bank:443", "other, MODELS.bank.", "0.0.0.0/0,::/0"):
        assert await policy(allow, models__bank=[address]).resolve("models.bank", 443) == (address,)
    await refusal(policy("models.bank:8443", models__bank=[address]), "models.bank")
    await refusal(policy("10.99.0.0/16", models__bank=[address]), "models.bank")


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "100.100.100.200",
        "168.63.129.16",
        "::",
        "::7f00:1",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1",
    ],
)
async def test_some_addresses_are_never_called(address: str) -> None:
    for allow in ("", "models.bank", "0.0.0.0/0,::/0,*", "*.bank"):
        denied = await refusal(policy(allow, models__bank=[address]), "models.bank")
        assert "No entry of the setting egress.allow opens it." in denied.hint


@pytest.mark.parametrize(
    "host",
    ["metadata.google.internal", "METADATA.google.internal.", "metadata", "a.metadata.goog"],
)
async def test_a_metadata_host_is_never_called_and_never_asked_for(host: str) -> None:
    for allow in ("", "*", "10.0.0.0/8"):
        names = Names(**{host: [PUBLIC]})
        await refusal(EgressPolicy(allow, ManualClock(), lookup=names), host)
        assert names.asked == []
        with pytest.raises(PilotageError):
            policy(allow).check_name(host, 443)


@pytest.mark.parametrize(
    "host",
    [
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "127.1",
        "0177.0.0.1",
        "127.0.0.01",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "fd00::1%eth0",
        "a b",
        "host\r\nx: y",
        "-a.com",
        "a..b",
        "",
        "a" * 64,
        ".".join(["a" * 60] * 5),
    ],
)
async def test_an_odd_spelling_is_refused_before_anything_is_asked(host: str) -> None:
    names = Names(**{host: ["127.0.0.1"]})
    for allow in ("", "127.0.0.1", "127.0.0.0/8"):
        await refusal(EgressPolicy(allow, ManualClock(), lookup=names), host)
    assert names.asked == []


@pytest.mark.parametrize("port", [0, -1, 65536])
async def test_a_port_that_is_none_is_refused(port: int) -> None:
    assert "no such port" in (await refusal(policy(a=[PUBLIC]), "a", port)).detail


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1.", "[::1]", "::1"])
async def test_a_literal_is_called_as_it_is_when_named(host: str) -> None:
    bare = host.strip("[].")
    allow = f"[{bare}]:9000" if ":" in bare else f"{bare}:9000"
    assert await policy(allow).resolve(host, 9000) == (bare,)
    await refusal(policy(allow), host, 9001)
    await refusal(policy(), host, 9000)


# Lists.


async def test_a_list_allows_what_it_names_and_nothing_else() -> None:
    names: dict[str, Sequence[str]] = {
        "api__openai__com": [PUBLIC],
        "eu__googleapis__com": [PUBLIC],
        "googleapis__com": [PUBLIC],
        "evilgoogleapis__com": [PUBLIC],
    }
    listed = policy("api.openai.com, *.googleapis.com:443", **names)
    assert await listed.resolve("api.openai.com", 80) == (PUBLIC,)
    assert await listed.resolve("eu.googleapis.com", 443) == (PUBLIC,)
    for host, port in [
        ("eu.googleapis.com", 80),
        ("googleapis.com", 443),
        ("evilgoogleapis.com", 443),
        ("93.184.216.34", 443),
    ]:
        assert "not named" in (await refusal(listed, host, port)).detail


async def test_a_host_that_no_entry_can_allow_is_not_asked_for() -> None:
    names = Names(secret__evil__com=[PUBLIC])
    await refusal(EgressPolicy("api.openai.com", ManualClock(), lookup=names), "secret.evil.com")
    assert names.asked == []


async def test_a_star_keeps_the_public_ones_beside_what_is_named() -> None:
    listed = policy("*, 127.0.0.1:9000", api__openai__com=[PUBLIC], local=["127.0.0.1"])
    assert await listed.resolve("api.openai.com", 443) == (PUBLIC,)
    assert await listed.resolve("local", 9000) == ("127.0.0.1",)
    await refusal(listed, "local", 9001)


async def test_of_several_addresses_those_allowed_are_used() -> None:
    mixed = policy(a__com=["169.254.169.254", "10.0.0.1", PUBLIC])
    assert await mixed.resolve("a.com", 443) == (PUBLIC,)


async def test_a_proxied_host_is_judged_by_its_name() -> None:
    for allow, host in [
        ("", "a.com"),
        ("*", "a.com"),
        ("a.com", "a.com"),
        ("localhost", "localhost"),
    ]:
        policy(allow).check_name(host, 443)
    for allow, host in [
        ("b.com", "a.com"),
        ("10.0.0.0/8", "a.com"),
        ("", "localhost"),
        ("*", "a.localhost"),
        ("", "10.0.0.1"),
        ("", "0x7f.1"),
    ]:
        with pytest.raises(PilotageError) as caught:
            policy(allow).check_name(host, 443)
        assert caught.value.code == "egress_denied"


@pytest.mark.parametrize(
    "allow",
    [
        "http://a.com",
        "a.com:0",
        "a.com:99999",
        "a.com:x",
        "10.0.0.1/8",
        "*.",
        "*.*.com",
        "a b/c",
        "0x7f.1",
        "a*",
        "*:443",
    ],
)
def test_an_entry_that_is_none_is_refused_with_a_remedy(allow: str) -> None:
    with pytest.raises(PilotageError) as caught:
        EgressRules.parse(f"api.openai.com,{allow}")
    assert (caught.value.code, "*.googleapis.com" in caught.value.hint) == ("invalid_config", True)


@pytest.mark.parametrize(
    "allow", ["169.254.169.254", "169.254.0.0/20", "metadata", "fe80::/64", "[ff02::1]:5"]
)
def test_an_entry_for_what_is_never_called_is_refused(allow: str) -> None:
    with pytest.raises(PilotageError, match="never called"):
        EgressRules.parse(allow)


# How names are asked for.


async def test_a_name_is_asked_for_once_in_a_while() -> None:
    clock, names = ManualClock(), Names(a__com=[PUBLIC])
    here = EgressPolicy("", clock, lookup=names)
    for _ in range(3):
        await here.resolve("a.com", 443)
    clock.advance(KEPT_S - 1)
    await here.resolve("a.com", 443)
    assert len(names.asked) == 1
    clock.advance(2)
    await here.resolve("a.com", 443)
    assert len(names.asked) == 2
    here.forget("A.com", 443)
    await here.resolve("a.com", 443)
    assert len(names.asked) == 3


async def test_an_answer_that_turns_bad_is_seen_after_that() -> None:
    clock, names = ManualClock(), Names(a__com=[PUBLIC])
    here = EgressPolicy("", clock, lookup=names)
    await here.resolve("a.com", 443)
    names.addresses["a.com"] = ["127.0.0.1"]
    assert await here.resolve("a.com", 443) == (PUBLIC,)  # what was judged is what is called
    clock.advance(KEPT_S + 1)
    await refusal(here, "a.com")


async def test_many_ask_once_and_share_what_comes() -> None:
    names = Names(a__com=[PUBLIC])
    here = EgressPolicy("", ManualClock(), lookup=names)
    names.gate.clear()
    good = [asyncio.ensure_future(here.resolve("a.com", 443)) for _ in range(50)]
    bad = [asyncio.ensure_future(here.resolve("b.com", 443)) for _ in range(50)]
    await asyncio.sleep(0)
    good[0].cancel()  # the one that asks
    await asyncio.sleep(0)
    names.gate.set()
    assert await asyncio.gather(*good[1:]) == [(PUBLIC,)] * 49
    assert names.asked == ["a.com", "b.com", "a.com"]
    for failed in await asyncio.gather(*bad, return_exceptions=True):
        assert isinstance(failed, socket.gaierror)


async def test_a_name_server_that_does_not_answer_is_waited_for_so_long() -> None:
    names = Names(a__com=[PUBLIC])
    names.gate.clear()
    here = EgressPolicy("", ManualClock(), lookup=names, timeout_s=0.01)
    with pytest.raises(TimeoutError):
        await here.resolve("a.com", 443)
    names.gate.set()
    assert await here.resolve("a.com", 443) == (PUBLIC,)


async def test_what_is_kept_is_bounded() -> None:
    names = Names()
    here = EgressPolicy("", ManualClock(), lookup=names)
    for number in range(MAX_KEPT + 5):
        names.addresses[f"h{number}.com"] = [PUBLIC]
        await here.resolve(f"h{number}.com", 443)
    assert len(here._kept) == MAX_KEPT


async def test_the_systems_resolver_is_asked() -> None:
    here = EgressPolicy("localhost", ManualClock())
    found = await here.resolve("localhost", 80)
    assert set(found) <= {"127.0.0.1", "::1"}
    with pytest.raises(socket.gaierror):
        await EgressPolicy("", ManualClock()).resolve("no-such-name.invalid", 80)


# Properties.

ADDRESSES = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address)
)
NEARBY = st.sampled_from(
    ["127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "::ffff:0:0/96", "fe80::/10", "fc00::/7"]
).flatmap(
    lambda text: st.integers(0, ip_network(text).num_addresses - 1).map(
        lambda index: ip_network(text)[index]
    )
)
MAPPED = IPv6Network("::ffff:0:0/96")


@given(st.one_of(ADDRESSES, NEARBY))
def test_without_a_list_only_the_internet_is_called(address: IPv4Address | IPv6Address) -> None:
    inner = ip_address(int(address) & 0xFFFFFFFF) if address in MAPPED else address
    is_allowed = EgressRules.parse("").judge_address(str(address), 443, address) == ""
    if inner.is_private or inner.is_loopback or inner.is_link_local or inner.is_multicast:
        assert not is_allowed or inner in ip_network("64:ff9b::/96")
    if is_allowed:
        assert EgressRules.parse("*").judge_address("a.com", 1, address) == ""
        assert EgressRules.parse("b.com").judge_address("a.com", 1, address) != ""


@given(st.one_of(ADDRESSES, NEARBY), st.one_of(ADDRESSES, NEARBY), st.integers(1, 65535))
def test_naming_an_address_opens_that_one_only(
    named: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address, port: int
) -> None:
    text = f"[{named}]:{port}" if named.version == 6 else f"{named}:{port}"
    if EgressRules.parse("0.0.0.0/0,::/0").judge_address(str(named), port, named):
        with pytest.raises(PilotageError):
            EgressRules.parse(text)
        return
    rules = EgressRules.parse(text)
    assert rules.judge_address(str(named), port, named) == ""
    assert rules.judge_address(str(named), port % 65535 + 1, named) != ""
    if int(other) & 0xFFFFFFFF != int(named) & 0xFFFFFFFF:
        assert rules.judge_address(str(other), port, other) != ""


@given(st.sampled_from(["", "*", "10.0.0.0/8", "*.a.com"]), st.text(max_size=30))
def test_no_text_that_is_given_for_a_host_breaks_the_rules(allow: str, host: str) -> None:
    assert isinstance(EgressRules.parse(allow).judge_name(normalise_host(host), 443), str)


@given(
    st.integers(0, 2**32 - 1).map(IPv4Address), st.sampled_from(["hex", "octal", "one", "short"])
)
def test_an_address_in_an_odd_spelling_is_no_host(address: IPv4Address, spelling: str) -> None:
    first, *rest = address.packed
    odd = {
        "hex": f"0x{first:x}." + ".".join(str(part) for part in rest),
        "octal": ".".join(f"0{part:o}" for part in address.packed),
        "one": str(int(address)),
        "short": f"{first}.{int(address) & 0xFFFFFF}",
    }[spelling]
    for allow in ("", "*", "0.0.0.0/0"):
        with pytest.raises(PilotageError) as caught:
            EgressPolicy(allow, ManualClock()).check_name(odd, 443)
        assert caught.value.code == "egress_denied"


@pytest.mark.parametrize(
    ("allow", "host", "says"),
    [
        ("", "api.openai.com", ""),
        ("", "127.0.0.1", "not public"),
        ("", "localhost", "not public"),
        ("", "169.254.169.254", "link-local"),
        ("*", "api.openai.com", ""),
        ("127.0.0.1:443", "127.0.0.1", ""),
        ("127.0.0.1:8000", "127.0.0.1", "not public"),
        ("127.0.0.1:443", "8.8.8.8", "not named in egress.allow"),
        ("api.openai.com", "api.anthropic.com", "not named in egress.allow"),
        ("10.0.0.0/8", "gpu.bank", ""),  # its address may be there
        ("10.0.0.0/8", "192.168.0.1", "not public"),
    ],
)
def test_what_is_sure_to_be_refused_is_foreseen(allow: str, host: str, says: str) -> None:
    rules = EgressRules.parse(allow)
    if not says:
        rules.foresee(host, 443)
        return
    with pytest.raises(PilotageError) as caught:
        rules.foresee(host, 443)
    assert caught.value.code == "egress_denied"
    assert says in caught.value.detail
