"""No code path changes traffic or a stage without a decision record."""

from pathlib import Path

import pytest

import decision_paths

SOURCE = Path(__file__).parents[2] / "src" / "pilotage"
SERVICE = "endpoints.service"


@pytest.fixture
def modules() -> dict[str, str]:
    return decision_paths.read_slices(SOURCE)


def test_every_change_of_traffic_is_recorded(modules: dict[str, str]) -> None:
    assert decision_paths.find_unrecorded(modules) == []


def test_every_change_of_traffic_passes_a_door(modules: dict[str, str]) -> None:
    assert decision_paths.find_unchecked(modules) == []


@pytest.mark.parametrize(
    ("module", "step", "found"),
    [
        (
            "endpoints.upstreams",
            "        await self._traffic.check_upstream(tx, upstream, UpstreamSpec(**after))\n",
            ["endpoints.upstreams.UpstreamService.replace_upstream"],
        ),
        (
            SERVICE,
            '        before = await self.traffic.begin(tx, "endpoints.traffic.route", endpoint)\n',
            ["endpoints.service.EndpointService.route"],
        ),
    ],
)
def test_a_change_past_the_door_is_found(
    modules: dict[str, str], module: str, step: str, found: list[str]
) -> None:
    assert step in modules[module]

    planted = modules | {module: modules[module].replace(step, "", 1)}

    assert decision_paths.find_unchecked(planted) == found


def test_the_changes_that_people_make_are_seen(modules: dict[str, str]) -> None:
    seen = set(decision_paths.list_recorders(modules))

    service = "endpoints.service.EndpointService"
    changes = {"deploy", "deploy_upstream", "split", "route", "undeploy", "delete_endpoint"}
    assert {f"{service}.{name}" for name in changes} <= seen
    assert "endpoints.upstreams.UpstreamService.replace_upstream" in seen
    assert "registry.promotions.Promotions.promote" in seen


def test_what_is_called_harmless_would_be_found_without_it(modules: dict[str, str]) -> None:
    known = set(decision_paths.HARMLESS) | decision_paths.OF_ROLLOUTS
    assert decision_paths.list_silent_writers(modules) == sorted(known)


def test_what_rollouts_do_is_written_into_their_record(modules: dict[str, str]) -> None:
    seen = set(decision_paths.list_recorders(modules))
    assert "rollouts.service.RolloutService.start" in seen
    service = "rollouts.service"
    planted = modules[service]
    for way in ("self.records.add_move(", "self.records.close(", "self._endpoints.undeploy("):
        assert way in planted
        planted = planted.replace(way, "self.leave(")
    planted = planted.replace("self.records.add_note(", "self.leave(")

    found = decision_paths.find_unrecorded(modules | {service: planted})
    assert "rollouts.service.RolloutService.move" in found


def test_a_rollout_that_begins_past_the_door_is_found(modules: dict[str, str]) -> None:
    service = "rollouts.service"
    planted = modules[service].replace("self._endpoints.admit_rollout(", "self._endpoints.admit(")
    assert planted != modules[service]

    found = decision_paths.find_unchecked(modules | {service: planted})

    assert found == ["rollouts.service.RolloutService.start"]


@pytest.mark.parametrize(
    ("module", "before", "after", "found"),
    [
        (
            SERVICE,
            "        await self.traffic.record(tx, DecisionKind.SPLIT, before)\n",
            "",
            ["endpoints.service.EndpointService.split", "endpoints.scheduled.ScheduledSplit.run"],
        ),
        (
            SERVICE,
            "        await self.traffic.record(tx, DecisionKind.DEPLOY, before)\n",
            "",
            [
                "endpoints.service.EndpointService.deploy",
                "endpoints.service.EndpointService.deploy_upstream",
            ],
        ),
        (
            "endpoints.upstreams",
            "    async def create_upstream(",
            (
                "    async def swap(self, tx, upstream, spec):\n"
                "        await store.replace_upstream(tx, upstream, spec)\n\n"
                "    async def create_upstream("
            ),
            ["endpoints.upstreams.UpstreamService.swap"],
        ),
        (
            "registry.promotions",
            "await self._record(tx, version, _KINDS[move], before, stage, results)",
            "found",
            [
                "registry.promotions.Promotions.promote",
                "registry.scheduled.ScheduledPromotion.run",
            ],
        ),
        (
            "registry.rules",
            "\n\n\ndef ",
            (
                "\n\n\nfrom pilotage.registry import store\n\n\n"
                "async def lift(tx, version):\n"
                '    await store.change_version(tx, version, stage="production")\n\n\ndef '
            ),
            ["registry.rules.lift"],
        ),
    ],
)
def test_a_change_without_a_record_is_found(
    modules: dict[str, str], module: str, before: str, after: str, found: list[str]
) -> None:
    assert before in modules[module]

    planted = modules | {module: modules[module].replace(before, after, 1)}

    assert decision_paths.find_unrecorded(planted) == sorted(found)


def test_a_new_way_to_write_is_found_by_who_takes_it(modules: dict[str, str]) -> None:
    store = modules["endpoints.store"] + (
        "\n\nasync def move_all(tx: Tx) -> None:\n"
        "    await tx.change(tx.update(ENDPOINT).values(split={}))\n"
    )
    caller = modules["endpoints.policies"] + (
        "\n\nasync def empty(tx: Tx) -> None:\n    await _empty(tx)\n"
        "\n\nasync def _empty(tx: Tx) -> None:\n    await store.move_all(tx)\n"
    )
    planted = modules | {"endpoints.store": store, "endpoints.policies": caller}

    assert decision_paths.find_unrecorded(planted) == ["endpoints.policies.empty"]
