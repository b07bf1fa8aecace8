"""The verbs of what is configured by name: channels, routes, inhibitions. Never commits."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.kit.clock import Clock
from pilotage.kit.db import Row, Tx
from pilotage.kit.outbox import append_revision
from pilotage.monitoring.notify import store
from pilotage.monitoring.notify.spec_rules import check_channel, check_inhibition, check_route
from pilotage.monitoring.notify.types import (
    Channel,
    ChannelSpec,
    Configured,
    InhibitionSpec,
    RouteSpec,
    SettingKind,
    Spec,
)

EVERYTHING = 1_000_000


class Settings(ABC, Generic[Spec]):
    """The objects of one kind in a project; a subclass says which, and what they can be."""

    kind: ClassVar[SettingKind]
    spec: type[Spec]
    prefix: ClassVar[str]
    word: ClassVar[str]
    command: ClassVar[str]

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def create(self, tx: Tx, name: str, spec: Spec) -> Configured[Spec]:
        """Create one in the transaction's project.

        Raise ``already_exists`` if the name is taken, ``invalid_request`` for what it cannot be.
        """
        check_name(name)
        if name.startswith(f"{self.prefix}_"):
            raise PilotageError(
                "invalid_request", f"{name!r} looks like an id, and is no name.", param="name"
            )
        checked = await self._check(tx, spec)
        if await store.find_setting(tx, self.kind, name):
            raise PilotageError(
                "already_exists", f"There is {self.word} {name!r} already.", param="name"
            )
        values: dict[str, Any] = {
            "id": self._clock.new_id(self.prefix),
            "rev": 1,
            "project_id": tx.project_id,
            "name": name,
            "created_at_us": tx.now_us,
        }
        made = Configured(spec=checked, **values)
        await store.insert_setting(tx, self.kind, values, checked)
        await append_revision(tx, f"monitoring.{self.kind}.created", made.id, 1, made)
        return made

    async def get(self, tx: Tx, name_or_id: str) -> Configured[Spec]:
        """Return a living one by name or id; raise ``not_found``."""
        found = await self.find(tx, name_or_id)
        if found is None:
            raise PilotageError(
                "not_found",
                f"There is no {self.word.split(' ', 1)[1]} {name_or_id!r}.",
                hint=f"List them: pilotage {self.command} list",
                param=self.kind,
            )
        return found

    async def find(self, tx: Tx, name_or_id: str) -> Configured[Spec] | None:
        """Return a living one by name or id, or None."""
        row = await store.find_setting(tx, self.kind, name_or_id)
        return self._read(row) if row and row["deleted_at_us"] is None else None

    async def find_by_id(self, tx: Tx, setting_id: str, project_id: str) -> Configured[Spec] | None:
        """Return a project's living one by its id alone, or None; also outside its scope."""
        row = await store.find_setting_by_id(tx, self.kind, setting_id, project_id)
        return self._read(row) if row and row["deleted_at_us"] is None else None

    async def list(
        self, tx: Tx, after: str = "", limit: int = EVERYTHING
    ) -> Sequence[Configured[Spec]]:
        """Return living ones by name."""
        return [self._read(row) for row in await store.list_settings(tx, self.kind, after, limit)]

    async def change(
        self, tx: Tx, name_or_id: str, spec: Spec, expected_rev: int | None = None
    ) -> Configured[Spec]:
        """Replace what is said of one; its name stays."""
        found = await self.get(tx, name_or_id)
        if expected_rev is not None and expected_rev != found.rev:
            raise self._changed(found)
        checked = await self._check(tx, spec)
        if checked == found.spec:
            return found
        if not await store.change_setting(tx, found.id, found.rev, checked):
            raise self._changed(found)
        event = f"monitoring.{self.kind}.changed"
        await append_revision(tx, event, found.id, found.rev + 1, checked, found.spec)
        return replace(found, rev=found.rev + 1, spec=checked)

    async def delete(self, tx: Tx, name_or_id: str) -> None:
        """Delete one; its name is free again."""
        found = await self.get(tx, name_or_id)
        await self._check_unused(tx, found)
        name = f"{found.name}~{found.id}"
        if not await store.change_setting(
            tx, found.id, found.rev, name=name, deleted_at_us=tx.now_us
        ):
            raise self._changed(found)
        gone = {"id": found.id, "name": found.name}
        event = f"monitoring.{self.kind}.deleted"
        await append_revision(tx, event, found.id, found.rev + 1, gone, found)

    @abstractmethod
    async def _check(self, tx: Tx, spec: Spec) -> Spec:
        """Return a specification in its one written form; raise ``invalid_request``."""

    async def _check_unused(self, tx: Tx, item: Configured[Spec]) -> None:
        """Raise ``conflict`` if something needs it."""

    def _read(self, row: Row) -> Configured[Spec]:
        values = {name: row[name] for name in row if name not in {"kind", "spec"}}
        return Configured(spec=msgspec.json.decode(row["spec"], type=self.spec), **values)

    def _changed(self, item: Configured[Spec]) -> PilotageError:
        return PilotageError(
            "precondition_failed",
            f"{item.name!r} has changed meanwhile.",
            hint="Read it again and decide anew.",
        )


class Routes(Settings[RouteSpec]):
    """Which alerts go where."""

    kind = SettingKind.ROUTE
    spec = RouteSpec
    prefix = "nrt"
    word = "a route"
    command = "routes"

    async def _check(self, tx: Tx, spec: RouteSpec) -> RouteSpec:
        checked = check_route(spec)
        for name in spec.channels:
            row = await store.find_setting(tx, SettingKind.CHANNEL, name)
            if row is None or row["deleted_at_us"] is not None or row["name"] != name:
                raise PilotageError(
                    "not_found",
                    f"channels: there is no channel {name!r}.",
                    hint="Create it first: pilotage channels set NAME",
                    param="channels",
                )
        return checked


class Channels(Settings[ChannelSpec]):
    """Where notices go."""

    kind = SettingKind.CHANNEL
    spec = ChannelSpec
    prefix = "chn"
    word = "a channel"
    command = "channels"

    async def _check(self, tx: Tx, spec: ChannelSpec) -> ChannelSpec:
        del tx
        return check_channel(spec)

    async def _check_unused(self, tx: Tx, item: Channel) -> None:
        routes = await Routes(self._clock).list(tx)
        using = [route.name for route in routes if item.name in route.spec.channels]
        if using:
            raise PilotageError(
                "conflict",
                f"The route {using[0]!r} leads to it.",
                hint=f"Lead it elsewhere first: pilotage routes set {using[0]} --to CHANNEL",
            )


class Inhibitions(Settings[InhibitionSpec]):
    """Which alerts say enough for others."""

    kind = SettingKind.INHIBITION
    spec = InhibitionSpec
    prefix = "inh"
    word = "an inhibition"
    command = "inhibitions"

    async def _check(self, tx: Tx, spec: InhibitionSpec) -> InhibitionSpec:
        del tx
        return check_inhibition(spec)
