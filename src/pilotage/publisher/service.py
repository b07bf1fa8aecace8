"""Compile, sign and publish; and say when a change is visible."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from pilotage.core.key_scopes import KEY_SCOPES, pack_scopes
from pilotage.core.prompt_table import PROMPTS, PublishedPrompt, pack_prompts
from pilotage.core.snapshot import (
    BEFORE_ROLLOUTS,
    Manifest,
    SectionRef,
    encode_directory,
    pack_digests,
    pack_keys,
)
from pilotage.core.usage import Rates
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import Deployment, Upstream
from pilotage.finops.service import FinopsService
from pilotage.identity.service import IdentityService
from pilotage.identity.types import Tenant
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.outbox import get_last_seq
from pilotage.publisher import rules, store
from pilotage.publisher.folder import SnapshotFolder
from pilotage.publisher.types import Boxes, LeftOut, Line, Unpublished

_LOG = logging.getLogger("pilotage.publisher")
RENEW_US = 3_600_000_000


class PromptSource(Protocol):
    """What the publisher asks of the registry of prompts."""

    async def mark_prompts(self, tx: Tx) -> str:
        """Return a text that changes with every change of any prompt, and is cheap to ask for."""
        ...

    async def list_published(self, tx: Tx) -> Sequence[PublishedPrompt]:
        """Return all that calls may name."""
        ...


class Letterboxes(Protocol):
    """What the publisher asks of whoever keeps the tenants' keys."""

    async def find(self, tx: Tx, tenant_ids: Collection[str]) -> Mapping[str, Boxes]:
        """Return the letterboxes of those tenants that have a key."""
        ...

    async def make(self, tx: Tx, tenant_ids: Collection[str]) -> None:
        """Give keys to tenants that have none."""
        ...


class PublisherService:
    """The only writer of Snapshots."""

    def __init__(  # noqa: PLR0913 - all whose truth it publishes
        self,
        *,
        db: Database,
        clock: Clock,
        identity: IdentityService,
        finops: FinopsService,
        endpoints: EndpointService,
        prompts: PromptSource,
        letterboxes: Letterboxes,
        folder: SnapshotFolder,
        context_tokens: int,
        max_age_us: int,
    ) -> None:
        self._db = db
        self._clock = clock
        self._identity = identity
        self._finops = finops
        self._endpoints = endpoints
        self._prompts = prompts
        self._letterboxes = letterboxes
        self._packed_prompts: tuple[str, SectionRef | None] = ("", None)
        self._folder = folder
        self._context_tokens = context_tokens
        self._max_age_us = max_age_us
        found = folder.find_current()
        self._current = found.manifest if found else None
        self._current_sha256 = found.sha256 if found else ""
        self._served = rules.list_rates(folder.read_directory(found.manifest)) if found else {}
        self._unpriced: set[str] = set()  # what is served at the price that it had
        self._published = asyncio.Condition()
        self._one_at_a_time = asyncio.Lock()
        self._has_compiled = False
        self._oldest_reader = BEFORE_ROLLOUTS
        self._is_closing = False
        self._price_changes_at_us: int | None = None
        self.unpublished: Sequence[Unpublished] = ()
        self.left_out: Sequence[LeftOut] = ()

    @property
    def current(self) -> Manifest | None:
        """The Snapshot published last."""
        return self._current

    async def publish(self) -> bool:
        """Publish a new Snapshot if anything changed or the last one ages.

        Return whether it did, or made keys that the next one needs.
        """
        async with self._one_at_a_time:
            async with self._db.read(SYSTEM) as tx:
                covers = await get_last_seq(tx)
                is_due = self._current is None or self._is_due(self._current, covers)
                if self._has_compiled and not is_due:
                    return False
                tenants = await self._identity.list_tenants(tx)
                keeping = {tenant.id for tenant in tenants if rules.seals(tenant)}
                boxes = await self._letterboxes.find(tx, keeping) if keeping else {}
                line = await store.get_line(tx)
                sections, line_after = await self._compile(tx, tenants, boxes, line, covers)
            if keyless := keeping - set(boxes):
                async with self._db.write(SYSTEM) as tx:
                    await self._letterboxes.make(tx, keyless)
                return True
            self._has_compiled = True
            if not is_due and self._current is not None and sections == self._current.sections:
                return False  # the first look of this process: prices or settings may have changed
            await self._issue(line, line_after, covers, sections)
        return True

    async def _issue(
        self, line: Line, line_after: Line, covers: int, sections: dict[str, SectionRef]
    ) -> None:
        before, now_us = self._current, self._clock.now_us()
        is_behind = before is not None and before.n > line.n  # a crash before the line was moved
        manifest = Manifest(
            n=max(line.n, before.n if before else 0) + 1,
            parent=self._current_sha256 if is_behind else line.parent,
            created_at_us=now_us,
            expires_at_us=now_us + self._max_age_us,
            oldest_gateway=self._oldest_reader,
            covers=covers,
            sections=sections,
        )
        sha256 = self._folder.put_manifest(manifest)
        async with self._db.write(SYSTEM) as tx:
            moved = replace(line_after, n=manifest.n, parent=sha256)
            if not await store.set_line(tx, line, moved):
                _LOG.warning("another publisher moved the line of Snapshots beyond %d", line.n)
        async with self._published:
            self._current, self._current_sha256 = manifest, sha256
            self._published.notify_all()
        self._folder.drop_sections(manifest, before, now_us)

    async def wait_published(self, seq: int, timeout_s: float) -> int | None:
        """Wait until a Snapshot covers a revision; return its number, None if none does in time."""
        try:
            async with asyncio.timeout(timeout_s), self._published:
                await self._published.wait_for(
                    lambda: self._current is not None and self._current.covers >= seq
                )
        except TimeoutError:
            return None
        return self._current.n if self._current else None

    async def wait_newer(self, n: int, timeout_s: float) -> bool:
        """Wait until a Snapshot newer than ``n`` is published; False if none is in time."""
        try:
            async with asyncio.timeout(timeout_s), self._published:
                await self._published.wait_for(
                    lambda: self._is_closing or (self._current is not None and self._current.n > n)
                )
        except TimeoutError:
            return False
        return self._current is not None and self._current.n > n

    async def end_waits(self) -> None:
        """Let nobody wait for a newer Snapshot any more: the server closes."""
        async with self._published:
            self._is_closing = True
            self._published.notify_all()

    def _is_due(self, current: Manifest, covers: int) -> bool:
        now_us = self._clock.now_us()
        if covers > current.covers or not self._folder.is_whole(current):
            return True
        if self._price_changes_at_us is not None and now_us >= self._price_changes_at_us:
            return True
        return now_us - current.created_at_us >= min(RENEW_US, self._max_age_us // 2)

    async def _compile(
        self,
        tx: Tx,
        tenants: Sequence[Tenant],
        letterboxes: Mapping[str, Boxes],
        line: Line,
        covers: int,
    ) -> tuple[dict[str, SectionRef], Line]:
        deployments = await self._endpoints.list_deployments(tx)
        upstreams = await self._endpoints.upstreams.list_upstreams(tx)
        compiled = rules.compile_directory(
            rules.Truth(
                tenants=tenants,
                letterboxes=letterboxes,
                endpoints=await self._endpoints.list_endpoints(tx),
                deployments=deployments,
                upstreams=upstreams,
                rates=await self._find_rates(tx, deployments, upstreams),
                limits=await self._finops.list_limit_entries(tx),
                context_tokens=self._context_tokens,
            )
        )
        self.unpublished, self.left_out = compiled.unpublished, compiled.left_out
        self._served = rules.list_rates(compiled.directory)
        self._oldest_reader = rules.find_oldest_reader(compiled.directory)
        self._price_changes_at_us = await self._finops.find_next_price_change(tx, tx.now_us)
        keys, line_after = await self._compile_keys(tx, line, covers)
        directory = self._folder.put_section(encode_directory(compiled.directory))
        prompts = await self._compile_prompts(tx)
        return {"directory": directory, **keys, **prompts}, line_after

    async def _compile_prompts(self, tx: Tx) -> dict[str, SectionRef]:
        """Return the section of prompts, if there are any; it is packed anew if one has changed."""
        mark = await self._prompts.mark_prompts(tx)
        packed_at, section = self._packed_prompts
        if packed_at != mark or (section is not None and not self._folder.has_section(section)):
            packed = pack_prompts(await self._prompts.list_published(tx))
            section = self._folder.put_section(packed) if packed else None
            self._packed_prompts = (mark, section)
        return {} if section is None else {PROMPTS: section}

    async def _compile_keys(
        self, tx: Tx, line: Line, covers: int
    ) -> tuple[dict[str, SectionRef], Line]:
        put, now_us = self._folder.put_section, self._clock.now_us()
        kept = SectionRef(sha256=line.base_sha256, size=line.base_size)
        if line.base_sha256 and not self._folder.has_section(kept):
            line = Line(n=line.n, parent=line.parent)  # the folder was cleared: build the base anew
        changed = await self._identity.list_changed_keys(tx, line.base_seq)
        if rules.is_merge_due(changed, line.base_seq) or not line.base_sha256:
            keys = changed if line.base_seq == 0 else await self._identity.list_changed_keys(tx, 0)
            base = put(await asyncio.to_thread(pack_keys, rules.make_records(keys, now_us)))
            line = replace(line, base_seq=covers, base_sha256=base.sha256, base_size=base.size)
            changed = []
        else:
            base = kept
        delta = put(pack_keys(rules.make_records(changed, 0)))
        sections = {"keys": base, "keys-delta": delta}
        sections["revoked"] = put(pack_digests(rules.list_revoked(changed)))
        sections[KEY_SCOPES] = put(pack_scopes(await self._identity.list_scopes(tx)))
        return sections, line

    async def _find_rates(
        self, tx: Tx, deployments: Sequence[Deployment], upstreams: Sequence[Upstream]
    ) -> Mapping[str, Rates]:
        """Return what calls of deployments cost; what has lost its price keeps the last one."""
        providers = {upstream.id: upstream.provider.value for upstream in upstreams}
        found: dict[str, Rates] = {}
        unpriced: set[str] = set()
        for deployment in deployments:
            provider = providers.get(deployment.upstream_id, "")
            rates = await self._finops.find_rates(
                tx,
                *deployment.priced_as,
                tx.now_us,
                project_id=deployment.project_id,
                provider=provider,
            )
            if rates is None and (rates := self._served.get((deployment.id, provider))) is not None:
                unpriced.add(deployment.model)
            if rates is not None:
                found[deployment.id] = rates
        for model in sorted(unpriced - self._unpriced):
            _LOG.warning("%s has no price any more: it is served at the one that it had", model)
        self._unpriced = unpriced
        return found
