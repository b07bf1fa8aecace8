"""What the control process shows, on both databases: the values that rules are evaluated on."""

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from alert_lab import AlertLab, open_lab
from exposition import Page
from otlp_receiver import OtlpReceiver
from pilotage.core.condition.parser import parse
from pilotage.core.condition.types import Condition
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.finops.service import FinopsService
from pilotage.finops.types import SpoolPlace
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.spool_consumer import SpoolHealth
from pilotage.monitoring.alerts import service as alert_service
from pilotage.monitoring.alerts.store import change_rule
from pilotage.monitoring.exports.exposition import render
from pilotage.monitoring.exports.service import Exports
from pilotage.monitoring.exports.types import Family
from pilotage.monitoring.exports.worker import MetricSender, Told
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.notify.store import insert_notice
from pilotage.monitoring.notify.types import ChannelKind, ChannelSpec


@dataclass
class Shown:
    """A lab and the page that is made of it."""

    lab: AlertLab
    exports: Exports
    failures: dict[str, int]

    async def read(self) -> Page:
        """Return the page, a second later."""
        self.lab.clock.advance(1)
        return Page(render(await self.exports.collect()).decode())


@pytest.fixture
async def shown(database: Database, clock: ManualClock) -> Shown:
    lab = await open_lab(database, clock)
    failures = {"ledger": 0}
    exports = Exports(
        database,
        clock,
        values=lab.values,
        names=lab.names,
        alerts=lab.service,
        keeper=lab.keeper,
        notices=NotifyService(clock),
        finops=FinopsService(clock),
        list_failures=lambda: list(failures.items()),
        list_readers=lambda: [("rollups", SpoolHealth(held_up=1, passed_over=2, damaged=3))],
        read_process=lambda: [("process_open_fds", (), 12)],
    )
    return Shown(lab, exports, failures)


@pytest.fixture
async def receiver() -> AsyncIterator[OtlpReceiver]:
    with OtlpReceiver() as opened:
        yield opened


async def test_each_metric_is_a_gauge_of_its_project_alias_and_window(shown: Shown) -> None:
    lab = shown.lab
    await lab.put_calls(*[lab.call(seconds=1)] * 19, lab.call(Outcome.UPSTREAM_ERROR, seconds=4))
    theirs = lab.call(seconds=8, project_id=lab.other.project_id, alias="chat")
    await lab.put_calls(theirs)

    page = await shown.read()

    projects = {label for _, own in page.series for name, label in own if name == "project"}
    assert projects == set(lab.names.projects.values())
    mine = {"project": lab.names.projects[str(lab.mine.project_id)], "alias": "chat"}
    for window in ("1m", "5m", "1h"):
        assert page.total("pilotage_request_count", window=window, **mine) == 20
        assert page.total("pilotage_error_rate", window=window, **mine) == 0.05
        assert page.total("pilotage_p50_latency", window=window, **mine) == pytest.approx(
            1, rel=0.01
        )
        assert page.total("pilotage_p99_latency", window=window, **mine) == pytest.approx(
            4, rel=0.01
        )
    assert page.total("pilotage_cost", window="5m", **mine) == pytest.approx(0.02)
    assert {kind for name, kind in page.kinds.items() if "latency" in name} == {"gauge"}
    assert "pilotage_p95_ttft" not in page.kinds  # no stream, so no number


async def test_what_rules_ask_for_is_shown_by_their_labels_too(shown: Shown) -> None:
    lab = shown.lab
    await lab.set_rule("slow-tenant", 'p95_latency{tenant="ten_1"}[15m] > 2s')
    await lab.set_rule("off", 'p95_latency{tenant="ten_1"}[30m] > 2s', is_enabled=False)
    await lab.put_calls(lab.call(seconds=3))

    page = await shown.read()

    asked = page.total("pilotage_p95_latency", window="15m", tenant="ten_1", alias="chat")
    assert asked == pytest.approx(3, rel=0.01)
    assert page.values("pilotage_p95_latency", "window") == {"1m", "5m", "1h", "15m"}


async def test_conditions_are_read_once_and_one_that_cannot_be_read_asks_for_nothing(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, read = shown.lab, list[str]()

    def note(text: str) -> Condition:
        read.append(text)
        return parse(text)

    monkeypatch.setattr(alert_service, "parse", note)
    await lab.set_rule("slow", "p95_latency[15m] > 2s")
    await lab.set_rule("other", "p50_latency[15m] > 2s")
    async with lab.db.write(lab.mine) as tx:  # as an older version may have written it
        rule = await lab.service.get_rule(tx, "other")
        await change_rule(tx, rule, condition="p50_latencies > 2s")
    await lab.put_calls(lab.call(seconds=3))
    read.clear()

    pages = [await shown.read() for _ in range(3)]

    assert read == ["p50_latencies > 2s"]  # the other was read when it was set
    for page in pages:
        assert page.total("pilotage_p95_latency", window="15m") == pytest.approx(3, rel=0.01)
        assert page.total("pilotage_p50_latency", window="15m") == 0


async def test_calls_that_reached_no_arm_are_no_second_value_of_their_alias(shown: Shown) -> None:
    lab = shown.lab
    await lab.set_rule("one-arm", 'request_count{arm!="old"} > 1')
    await lab.set_rule("one-tenant", 'request_count{tenant=~"ten_.*"} > 1')
    await lab.put_calls(*[lab.call(arm="new", tenant_id="ten_1")] * 3, lab.call(tenant_id=""))
    await lab.put_calls(lab.call(alias="", tenant_id=""))

    page = await shown.read()

    def count(**labels: str) -> float:
        return page.series["pilotage_request_count", frozenset((mine | labels).items())]

    mine = {"project": lab.names.projects[str(lab.mine.project_id)], "window": "1m"}
    assert count(alias="chat") == 4
    assert count(alias="chat", arm="new") == count(alias="chat", tenant="ten_1") == 3
    assert all(value for _, own in page.series for _, value in own)
    assert await lab.look() == [("one-arm", "firing"), ("one-tenant", "firing")]


async def test_alerts_say_who_they_are_about_until_they_are_over(shown: Shown) -> None:
    lab = shown.lab
    await lab.set_rule(
        "slow", "p95_latency > 2s for 5s", team="ops", labels={"state": "mine", "area": "x"}
    )
    await lab.put_calls(lab.call(seconds=3))
    await lab.look()

    def total(page: Page, state: str) -> float:
        return page.total("pilotage_alert", rule="slow", alias="chat", area="x", state=state)

    assert total(await shown.read(), "pending") == 1
    await lab.look(times=6)
    page = await shown.read()
    assert (total(page, "pending"), total(page, "firing")) == (0, 1)
    assert page.values("pilotage_alert", "team") == {"ops"}
    lab.clock.advance(300)
    await lab.look()
    assert "pilotage_alert" not in (await shown.read()).kinds


async def test_a_source_that_cannot_be_read_takes_no_other_with_it(
    database: Database, clock: ManualClock
) -> None:
    class Broken:
        names = frozenset({"cpu_usage"})

        async def read(self, *_: object) -> dict[object, object]:
            raise PilotageError("unavailable", "No.")

    lab = await open_lab(database, clock, Broken())  # type: ignore[arg-type]
    exports = Exports(
        database, clock, values=lab.values, names=lab.names, alerts=lab.service,
        keeper=lab.keeper, notices=NotifyService(clock), finops=FinopsService(clock),
        list_failures=list, list_readers=list, read_process=list,
    )  # fmt: skip
    await lab.put_calls(lab.call())

    page = await Shown(lab, exports, {}).read()

    assert "pilotage_cpu_usage" not in page.kinds
    assert page.total("pilotage_request_count", window="1m") == 1


async def test_places_failures_and_the_process_itself_are_shown(shown: Shown) -> None:
    async with shown.lab.db.write(SYSTEM) as tx:
        place = SpoolPlace(gateway="gateway-0", epoch="e", seq=0)
        await FinopsService(shown.lab.clock).record(tx, place, 41, [])
    shown.failures["ledger"] = 3

    page = await shown.read()

    assert page.total("pilotage_ledger_position", slot="gateway-0") == 41
    assert page.total("pilotage_worker_failures", worker="ledger") == 3
    assert page.total("pilotage_spools_held_up", reader="rollups") == 1
    assert page.total("pilotage_spool_passed_over_total", reader="rollups") == 2
    assert page.total("pilotage_spool_losses_total", reader="rollups") == 3
    assert page.kinds["pilotage_spool_losses_total"] == "counter"
    assert page.total("pilotage_control_build_info") == 1
    assert page.total("process_open_fds") == 12


async def test_how_old_the_last_look_is_and_what_nobody_can_say_are_shown(shown: Shown) -> None:
    assert "pilotage_alerts_looked_at_seconds" not in (await shown.read()).kinds
    await shown.lab.set_rule("slow", "p95_latency > 2s")
    await shown.lab.set_rule("costs", "daily_cost > $5")
    shown.lab.is_current = False
    await shown.lab.look()
    looked_s = shown.lab.clock.now_us() / 1e6

    page = await shown.read()

    assert page.total("pilotage_alerts_looked_at_seconds") == looked_s
    assert page.total("pilotage_alert_rules_unknown") == 1


async def test_notices_that_wait_are_shown_by_channel(shown: Shown) -> None:
    service = NotifyService(shown.lab.clock)
    async with shown.lab.db.write(shown.lab.mine) as tx:
        channel = await service.channels.create(tx, "on-call", ChannelSpec(kind=ChannelKind.LOG))
        await insert_notice(tx, service.make_test(tx, channel))

    page = await shown.read()

    assert page.total("pilotage_notices", channel="on-call", state="waiting") == 1


async def test_the_page_is_made_once_a_second_however_many_ask(shown: Shown) -> None:
    first = await shown.exports.collect()
    assert await shown.exports.collect() is first
    shown.lab.clock.advance(1)
    assert await shown.exports.collect() is not first


def make_sender(url: str, clock: ManualClock, *told: Told) -> MetricSender:
    async def collect() -> list[Told]:
        return list(told)

    return MetricSender(url, {"authorization": "Bearer it"}, collect, clock, 60)


def told(process: str, families: list[Family]) -> Told:
    return Told(process=process, instance="one", families=families, since_us=1)


async def test_a_collector_gets_the_numbers_when_it_is_time(
    shown: Shown, receiver: OtlpReceiver
) -> None:
    lab = shown.lab
    await lab.put_calls(lab.call(seconds=2))
    families = await shown.exports.collect()
    sender = make_sender(receiver.url, lab.clock, told("pilotage-control", families))

    await sender.step()
    assert receiver.tries == 0
    lab.clock.advance(60)
    await sender.step()
    await sender.step()

    assert receiver.paths == ["/v1/metrics"]
    assert receiver.headers[0]["authorization"] == "Bearer it"
    found = {metric["name"]: metric for name, metric in receiver.metrics}
    points = found["pilotage_p95_latency"]["gauge"]["dataPoints"]
    assert math.isclose(points[0]["asDouble"], 2, rel_tol=0.01)
    assert {name for name, _ in receiver.metrics} == {"pilotage-control"}


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (404, b"", "status 404"),
        (200, b'{"partialSuccess":{"rejectedDataPoints":"3","errorMessage":"old"}}', "3 numbers"),
    ],
)
async def test_a_collector_that_does_not_take_them_is_said(
    shown: Shown, receiver: OtlpReceiver, status: int, answer: bytes, reason: str
) -> None:
    receiver.status, receiver.answer = status, answer
    sender = make_sender(receiver.url, shown.lab.clock, told("pilotage-control", []))
    shown.lab.clock.advance(60)

    with pytest.raises(PilotageError, match=reason) as refused:
        await sender.step()

    assert "metrics_every" in refused.value.hint
    receiver.status, receiver.answer = 200, b"no json"
    shown.lab.clock.advance(60)
    await sender.step()
    assert sender.sent == 1


async def test_a_collector_that_is_away_is_asked_until_it_is_back(shown: Shown) -> None:
    with OtlpReceiver() as gone:
        url = gone.url
    sender = make_sender(url, shown.lab.clock, told("pilotage-control", []))
    shown.lab.clock.advance(60)

    for _ in range(5):  # each a step that failed, so that WorkerFails can tell
        with pytest.raises(PilotageError, match="did not take the metrics"):
            await sender.step()

    assert sender.sent == 0
    with OtlpReceiver(int(url.rpartition(":")[2])):
        await sender.step()
        await sender.step()
    assert sender.sent == 1


async def test_what_is_refused_of_one_process_is_sent_of_the_others(
    shown: Shown, receiver: OtlpReceiver
) -> None:
    clock = shown.lab.clock
    families = await shown.exports.collect()
    not_sendable = Told(process="first", instance="\ud800", families=[])
    sender = make_sender(receiver.url, clock, not_sendable, told("pilotage-control", families))
    clock.advance(60)

    with pytest.raises(UnicodeEncodeError):
        await sender.step()

    assert {name for name, _ in receiver.metrics} == {"pilotage-control"}
