"""What a gateway that runs apart asks of the control plane: Snapshots out, frames in.

Bodies of records are compressed with zlib. A gateway names its own slots only: whose they are is
said by its credential.
"""

import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import CURRENT, SECTIONS
from pilotage.identity.service import IdentityService
from pilotage.kit.api import RawCall, RawReply, RawRoute
from pilotage.kit.spool_copy import read_piece
from pilotage.publisher.remotes import RemoteGateways, SlotReport
from pilotage.publisher.seeds import SeedFile
from pilotage.publisher.service import PublisherService

LONGEST_WAIT_S = 60
MOST_BYTES = 16 << 20  # of records in one request, as they are and compressed
MOST_REPORT_BYTES = 4096
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)


def remote_routes(
    identity: IdentityService,
    publisher: PublisherService,
    remotes: RemoteGateways,
    seeds: SeedFile,
    snapshots: Path,
) -> list[RawRoute]:
    """List the routes for gateways; ``snapshots`` is the folder that local ones read."""
    return [
        *_snapshot_routes(identity, publisher, snapshots),
        *_spool_routes(identity, remotes),
        _report_route(identity, remotes),
        _counters_route(identity, seeds),
    ]


def _snapshot_routes(
    identity: IdentityService, publisher: PublisherService, snapshots: Path
) -> list[RawRoute]:
    async def get_snapshot(call: RawCall) -> RawReply:
        """Return the signed manifest once it is newer than ``after``; 204 after ``wait_s``."""
        after = _read_number(call.query, "after", 0, 2**63 - 1)
        wait_s = _read_number(call.query, "wait_s", 0, LONGEST_WAIT_S)
        if not await publisher.wait_newer(after, wait_s):
            return RawReply(status=204)
        await _find_name(identity, call)  # it may have been revoked meanwhile
        return RawReply(body=(snapshots / CURRENT).read_bytes(), media_type="application/json")

    async def get_section(call: RawCall) -> RawReply:
        """Return a section of a Snapshot by its hash; it never changes."""
        digest = call.path["digest"]
        path = snapshots / SECTIONS / digest
        if not _DIGEST.fullmatch(digest) or not path.is_file():
            raise PilotageError("not_found", "There is no such section.", param="digest")
        return RawReply(body=path)

    return [
        RawRoute(
            method="GET",
            path="/gateway/snapshot",
            permission="remote.snapshot.read",
            handler=get_snapshot,
            is_global=True,
        ),
        RawRoute(
            method="GET",
            path="/gateway/sections/{digest}",
            permission="remote.section.read",
            handler=get_section,
            is_global=True,
        ),
    ]


def _spool_routes(identity: IdentityService, remotes: RemoteGateways) -> list[RawRoute]:
    async def get_place(call: RawCall) -> RawReply:
        """Return the number of the last record that is here."""
        name = await _find_name(identity, call)
        return _show_place(await remotes.find_seq(name, call.path["slot"], call.path["epoch"]))

    async def append(call: RawCall) -> RawReply:
        """Take in records from number ``from_seq`` on; return the last one that is on disk.

        ``lost_before=1`` says that what is missing before them is lost for ever.
        """
        name = await _find_name(identity, call)
        first_seq = _read_number(call.query, "from_seq", 1, 2**63 - 1)
        is_lost_before = bool(_read_number(call.query, "lost_before", 0, 1))
        piece = read_piece(first_seq, _inflate(await _read_body(call, MOST_BYTES)))
        return _show_place(
            await remotes.append(
                name, call.path["slot"], call.path["epoch"], piece, is_lost_before=is_lost_before
            )
        )

    path = "/gateway/spools/{slot}/{epoch}"
    return [
        RawRoute(
            method="GET",
            path=path,
            permission="remote.spool.read",
            handler=get_place,
            is_global=True,
        ),
        RawRoute(
            method="POST",
            path=path,
            permission="remote.spool.append",
            handler=append,
            is_global=True,
        ),
    ]


def _report_route(identity: IdentityService, remotes: RemoteGateways) -> RawRoute:
    async def put_report(call: RawCall) -> RawReply:
        """Note which Snapshot a slot serves and how far its records have come."""
        name = await _find_name(identity, call)
        try:
            content = await _read_body(call, MOST_REPORT_BYTES)
            report = msgspec.json.decode(content, type=SlotReport)
        except msgspec.DecodeError as wrong:
            raise PilotageError("invalid_json", f"That is no report: {wrong}.") from None
        await remotes.note(name, call.path["slot"], report)
        return RawReply(status=204)

    return RawRoute(
        method="PUT",
        path="/gateway/acks/{slot}",
        permission="remote.ack.put",
        handler=put_report,
        is_global=True,
    )


def _counters_route(identity: IdentityService, seeds: SeedFile) -> RawRoute:
    async def get_counters(call: RawCall) -> RawReply:
        """Return who counted what, for a store of counters that comes back empty.

        204 if that is known already: ``known`` is the SHA-256 of what was returned last, in hex.
        """
        await _find_name(identity, call)
        content = seeds.read(call.query.get("known", ""))
        if content is None:
            return RawReply(status=204)
        if not content:
            raise PilotageError("not_ready", "The ledger has not been read yet.")
        return RawReply(body=content, media_type="application/json")

    return RawRoute(
        method="GET",
        path="/gateway/counters",
        permission="remote.counter.read",
        handler=get_counters,
        is_global=True,
    )


async def _find_name(identity: IdentityService, call: RawCall) -> str:
    """Return the name of the gateway that asks; raise ``permission_denied`` if it is none now."""
    async with call.read() as tx:
        try:
            gateway = await identity.get_gateway(tx, call.actor.principal_id)
        except PilotageError:
            gateway = None
    if gateway is None or not identity.is_gateway(gateway):
        raise PilotageError("permission_denied", "This is for gateways that run apart.")
    return gateway.name


async def _read_body(call: RawCall, most_bytes: int) -> bytes:
    parts, size = [], 0
    async for part in call.body():
        size += len(part)
        if size > most_bytes:
            raise PilotageError("request_too_large", f"At most {most_bytes} bytes at once.")
        parts.append(part)
    return b"".join(parts)


def _inflate(content: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(content, MOST_BYTES)
    except zlib.error as wrong:
        raise PilotageError("invalid_request", f"The body is not compressed: {wrong}.") from None
    if inflater.unconsumed_tail:
        raise PilotageError("request_too_large", f"At most {MOST_BYTES} bytes of records at once.")
    if not inflater.eof:
        raise PilotageError("invalid_request", "The body is cut.")
    return raw


def _show_place(seq: int) -> RawReply:
    return RawReply(body=msgspec.json.encode({"seq": seq}), media_type="application/json")


def _read_number(query: Mapping[str, str], name: str, lowest: int, highest: int) -> int:
    text = query.get(name, "0")
    if not _NUMBER.fullmatch(text) or not lowest <= int(text) <= highest:
        raise PilotageError(
            "invalid_request", f"{name} must be from {lowest} to {highest}.", param=name
        )
    return int(text)
