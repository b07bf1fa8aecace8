"""The keys of an issuer that does not answer: who asks, who waits, who gets what there is."""

import asyncio
from typing import Any

import pytest

from oidc_issuer import OidcIssuer
from pilotage.core.errors import PilotageError
from pilotage.identity.signing_keys import SigningKeys
from pilotage.identity.types import TokenIssuer
from pilotage.kit.clock import ManualClock

URL = "https://id.example.org"
ISSUER = TokenIssuer(id="iss_1", rev=1, name="bank", created_at_us=0, url=URL, audience="pilotage")


class Away:
    """An issuer that answers while it is not away; ``asked`` counts how often it was asked."""

    def __init__(self) -> None:
        self.issuer = OidcIssuer()
        self.issuer.add_ec("one")
        self.asked = 0
        self.is_away = True
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, url: str) -> Any:  # noqa: ANN401 - JSON of any kind
        if url.endswith("/keys"):
            return {"keys": self.issuer.list_keys()}
        self.asked += 1
        await self.gate.wait()
        if self.is_away:
            raise PilotageError("unavailable", f"{url} cannot be read.")
        return {"issuer": URL, "jwks_uri": f"{URL}/keys"}


async def ask(keys: SigningKeys, kid: str = "one") -> str:
    """Return the id of the key, or the code of the error."""
    try:
        return str((await keys.find(ISSUER, kid)).key_id)
    except PilotageError as refused:
        return refused.code


async def test_all_who_wait_get_the_one_answer_that_there_is_none() -> None:
    away, clock = Away(), ManualClock()
    keys = SigningKeys(clock, away)
    away.gate.clear()
    waiting = [asyncio.ensure_future(ask(keys)) for _ in range(20)]
    await asyncio.sleep(0)
    away.gate.set()

    assert set(await asyncio.gather(*waiting)) == {"unavailable"}
    assert away.asked == 1


async def test_an_issuer_that_did_not_answer_is_left_alone_for_half_a_minute() -> None:
    away, clock = Away(), ManualClock()
    keys = SigningKeys(clock, away)
    for _ in range(3):
        assert await ask(keys) == "unavailable"
        clock.advance(9)
    assert away.asked == 1
    away.is_away = False
    clock.advance(2)
    assert await ask(keys) == "unavailable"
    clock.advance(1)
    assert await ask(keys) == "one"
    assert away.asked == 2


async def test_old_keys_do_while_an_issuer_is_left_alone() -> None:
    away, clock = Away(), ManualClock()
    keys = SigningKeys(clock, away)
    away.is_away = False
    assert await ask(keys) == "one"
    away.is_away = True
    clock.advance(301)
    for _ in range(5):
        assert await ask(keys) == "one"
        assert await ask(keys, "another") == "invalid_credential"
    assert away.asked == 2


async def test_nobody_waits_longer_than_the_limit_and_that_is_a_failure_too() -> None:
    away, clock = Away(), ManualClock()
    keys = SigningKeys(clock, away, limit_s=0)
    away.gate.clear()

    assert await asyncio.gather(*(ask(keys) for _ in range(3))) == ["unavailable"] * 3
    assert away.asked == 1
    with pytest.raises(PilotageError, match="takes more than 0 s"):
        await keys.find(ISSUER, "one")
