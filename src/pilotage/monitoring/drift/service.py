"""The verbs of drift. Never commits: whoever opened the transaction does."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from pilotage.core.drift import LEAST_REFERENCE
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock, rfc3339
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.monitoring.drift import store
from pilotage.monitoring.drift.rules import (
    KEPT_US,
    LONGEST_WINDOW_US,
    compare_all,
    find_ripe,
    floor,
    freeze,
)
from pilotage.monitoring.drift.types import (
    AnswerKey,
    Cells,
    Comparison,
    Frozen,
    Measure,
    Reference,
)

CheckEndpoint = Callable[[Tx, str], Awaitable[None]]
"""Raise ``not_found`` for a name that is no endpoint's."""

EVERYTHING = 1_000_000


class DriftService:
    """What is counted of calls, the references of versions, and how far windows are from them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def record(self, tx: Tx, cells: Cells) -> None:
        """Add what was counted of some calls."""
        await store.add_cells(tx, cells)

    async def list_keys(self, tx: Tx, alias: str | None = None) -> Sequence[AnswerKey]:
        """Return whose answers were counted in the last 35 days."""
        keys = await store.list_keys(tx, tx.now_us - KEPT_US)
        return [key for key in keys if alias is None or key.alias == alias]

    async def compare(self, tx: Tx, until_us: int, alias: str | None = None) -> list[Comparison]:
        """Return how far the newest answers before a time are from each reference."""
        references = await store.list_references(tx, alias, "", EVERYTHING)
        if not references:
            return []
        cells = await store.list_cells(tx, floor(until_us - LONGEST_WINDOW_US), until_us)
        return await asyncio.to_thread(compare_all, references, cells, until_us)

    async def freeze(
        self,
        tx: Tx,
        alias: str,
        model: str,
        since_us: int | None = None,
        until_us: int | None = None,
    ) -> Reference:
        """Make the calls of a span (default: all that are kept) the reference of a model's version.

        ``model`` is ``NAME@VERSION`` or the version's id. Raises ``not_found`` if the endpoint had
        no calls answered by it, ``conflict`` if there were too few.
        """
        key = await self._find_key(tx, alias, model)
        since_us = floor(tx.now_us - KEPT_US if since_us is None else max(0, since_us))
        until_us = floor(tx.now_us if until_us is None else min(until_us, tx.now_us))
        cells = await store.list_cells(tx, since_us, until_us, key)
        measures = freeze(cells, since_us, until_us)
        if not measures:
            raise PilotageError(
                "conflict",
                f"{alias} has too few answers by {key.model} to be a reference from "
                f"{rfc3339(since_us)} to {rfc3339(until_us)}.",
                hint=f"A measure needs {LEAST_REFERENCE} values. Calls are counted by half hours, "
                "and the running one is left out.",
                param="since",
            )
        known = await store.find_reference_of(tx, key)
        return await self._write(tx, key, known, measures, is_automatic=False)

    async def list_unfrozen(self, tx: Tx) -> list[tuple[AnswerKey, set[Measure]]]:
        """Return whose references lack which measures, of those that freeze by themselves.

        A reference that a person chose gets no more measures by itself.
        """
        references = {item.key: item for item in await store.list_references(tx)}
        found = []
        for key in await store.list_keys(tx, tx.now_us - KEPT_US):
            known = references.get(key)
            if known is None:
                found.append((key, set(Measure)))
            elif known.is_automatic and set(Measure) - set(known.measures):
                found.append((key, set(Measure) - set(known.measures)))
        return found

    async def find_ripe(
        self, tx: Tx, key: AnswerKey, missing: Collection[Measure]
    ) -> dict[Measure, Frozen]:
        """Return those of some measures that have enough values by now, with the first of them."""
        until_us = floor(tx.now_us)
        counted = await store.list_cells(tx, tx.now_us - KEPT_US, until_us, key, missing)
        return await asyncio.to_thread(find_ripe, counted, until_us)

    async def freeze_ripe(self, tx: Tx, key: AnswerKey, ripe: Mapping[Measure, Frozen]) -> None:
        """Add measures to a reference; what it has stays, and so does one that a person chose."""
        known = await store.find_reference_of(tx, key)
        if known is None:
            await self._write(tx, key, None, dict(ripe), is_automatic=True)
        elif known.is_automatic and set(ripe) - set(known.measures):
            await self._write(tx, key, known, {**ripe, **known.measures}, is_automatic=True)

    async def get_reference(self, tx: Tx, reference_id: str) -> Reference:
        """Return a reference; raise ``not_found``."""
        found = await store.find_reference(tx, reference_id)
        if found is None:
            raise PilotageError(
                "not_found",
                f"There is no reference {reference_id!r}.",
                hint="List them: pilotage drift references",
                param="reference",
            )
        return found

    async def list_references(
        self, tx: Tx, alias: str | None = None, after: str = "", limit: int = EVERYTHING
    ) -> Sequence[Reference]:
        """Return references in order of their ids."""
        return await store.list_references(tx, alias, after, limit)

    async def delete_reference(self, tx: Tx, reference_id: str) -> None:
        """Delete a reference; another is frozen once there are enough calls, or by hand."""
        found = await self.get_reference(tx, reference_id)
        if not await store.delete_reference(tx, found.id, found.rev):
            raise _changed(found)
        gone = {"id": found.id, "alias": found.alias, "model": found.model}
        await append_revision(tx, "monitoring.reference.deleted", found.id, found.rev + 1, gone)

    async def drop_old(self, tx: Tx) -> int:
        """Drop what was counted more than 35 days ago; references stay."""
        return await store.drop_cells(tx, tx.now_us - KEPT_US)

    async def _find_key(self, tx: Tx, alias: str, model: str) -> AnswerKey:
        keys = await self.list_keys(tx, alias)
        found = [key for key in keys if model in (key.model, key.version_id)]
        if not found:
            known = ", ".join(sorted(key.model for key in keys)) or "none"
            raise PilotageError(
                "not_found",
                f"{model[:80]!r} has answered no calls of {alias[:80]!r} in the last 35 days.",
                hint=f"Name the model and its version. Of this endpoint there are: {known}.",
                param="model",
            )
        if len(found) > 1:
            ids = ", ".join(key.version_id or "(none)" for key in found)
            raise PilotageError(
                "conflict",
                f"Several versions called {model[:80]!r} have answered calls of {alias[:80]!r}.",
                hint=f"Name one by its id: {ids}.",
                param="model",
            )
        return found[0]

    async def _write(
        self,
        tx: Tx,
        key: AnswerKey,
        known: Reference | None,
        measures: dict[Measure, Frozen],
        *,
        is_automatic: bool,
    ) -> Reference:
        reference = Reference(
            **key._asdict(),
            id=known.id if known else self._clock.new_id("ref"),
            rev=known.rev + 1 if known else 1,
            is_automatic=is_automatic,
            frozen_at_us=tx.now_us,
            frozen_by=tx.actor.principal_id,
            measures=measures,
        )
        if known is None:
            if not await store.insert_reference(tx, reference):
                raise _changed(reference)
        elif not await store.change_reference(tx, reference, known.rev):
            raise _changed(reference)
        await append_revision(
            tx, "monitoring.reference.frozen", reference.id, reference.rev, _describe(reference)
        )
        return reference


def _describe(reference: Reference) -> dict[str, object]:
    return {
        "project_id": reference.project_id,
        "alias": reference.alias,
        "version_id": reference.version_id,
        "model": reference.model,
        "is_automatic": reference.is_automatic,
        "measures": {
            measure.value: {
                "since_us": frozen.since_us,
                "until_us": frozen.until_us,
                "values": frozen.held.count,
            }
            for measure, frozen in sorted(reference.measures.items())
        },
    }


def _changed(reference: Reference) -> PilotageError:
    return PilotageError(
        "conflict",
        f"The reference of {reference.alias} and {reference.model} was changed meanwhile.",
        hint="Try again.",
    )
