"""Envelope encryption: each owner (tenant or project) has data keys, wrapped by the root key.

Whoever needs an owner's keys reads them within a transaction and forgets them with it, so that a
key that was destroyed or whose making was rolled back is never used from memory. The newest of an
owner's keys seals, all of them open, and the first one fingerprints: a rotation makes no other
person of anybody. A destroyed key leaves its row without the key, so none is made in its place.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from pilotage.core.errors import PilotageError
from pilotage.kit import sealing
from pilotage.kit.db import METADATA, Row, Tx
from pilotage.kit.outbox import append_revision
from pilotage.kit.root_keys import RootKeys

INSTALLATION = "installation"  # the owner of what is neither a tenant's nor a project's
PAGE = 500

DATA_KEY = sa.Table(
    "data_key",
    METADATA,
    sa.Column("owner_id", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("root", sa.Integer, nullable=False, index=True),
    sa.Column("wrapped", sa.LargeBinary),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("destroyed_at_us", sa.BigInteger),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKey:
    """What may be known of a data key: whose, which root key wraps it, until when it was there."""

    owner_id: str
    number: int
    rev: int
    root: int
    created_at_us: int
    destroyed_at_us: int | None

    @property
    def id(self) -> str:
        """The name by which pages continue."""
        return f"{self.owner_id}/{self.number:010d}"


async def has_data_keys(tx: Tx) -> bool:
    """Say whether there is any data key that was not destroyed."""
    living = tx.select(DATA_KEY, DATA_KEY.c.owner_id).where(DATA_KEY.c.wrapped.is_not(None))
    return await tx.find(living.limit(1)) is not None


class OwnerKeys:
    """The keys of one owner, unwrapped: to be forgotten with the transaction that read them."""

    def __init__(self, owner_id: str, keys: Mapping[int, bytes]) -> None:
        self.owner_id = owner_id
        self._keys = keys

    @property
    def newest(self) -> int:
        """The number of the key that seals."""
        return max(self._keys)

    def seal(self, plain: bytes, purpose: str) -> bytes:
        """Encrypt bytes for a purpose."""
        return sealing.seal(self._keys[self.newest], self.newest, self.owner_id, purpose, plain)

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """Decrypt what was sealed for the same purpose; raise ValueError if that cannot be."""
        key = self._keys.get(sealing.read_key_number(sealed))
        if key is None:
            raise ValueError("the key of these sealed bytes is not there")
        return sealing.unseal(key, self.owner_id, purpose, sealed)

    def make_letterbox(self, purpose: str) -> str:
        """Return what others can seal with for this owner and a purpose, and cannot open."""
        return sealing.make_letterbox(self._keys[self.newest], self.newest, self.owner_id, purpose)

    def open_letter(self, letter: bytes, box_purpose: str, purpose: str) -> bytes:
        """Decrypt what was posted for a purpose into a letterbox; raise ValueError if not so."""
        key = self._keys.get(sealing.read_letter_number(letter))
        if key is None:
            raise ValueError("the key of this letter is not there")
        return sealing.open_letter(key, self.owner_id, box_purpose, purpose, letter)

    def fingerprint(self, text: str, purpose: str) -> str:
        """Return what stands for a text: the same for ever, and another for another purpose."""
        return sealing.fingerprint(self._keys[min(self._keys)], self.owner_id, purpose, text)


class Vault:
    """Every owner's data keys; never commits."""

    def __init__(self, root: RootKeys) -> None:
        self.root = root

    async def seal(self, tx: Tx, owner_id: str, plain: bytes, purpose: str) -> bytes:
        """Encrypt bytes for an owner and a purpose; raise ``erased`` if its key is destroyed."""
        return (await self.get_keys(tx, owner_id)).seal(plain, purpose)

    async def open(self, tx: Tx, owner_id: str, sealed: bytes, purpose: str) -> bytes:
        """Decrypt what was sealed.

        Raise ``erased`` if the key is destroyed, ValueError if the bytes are not what was sealed.
        """
        found = await self.find_keys(tx, [owner_id])
        if owner_id not in found:
            raise _erased(owner_id)
        return found[owner_id].open(sealed, purpose)

    async def fingerprint(self, tx: Tx, owner_id: str, text: str, purpose: str) -> str:
        """Return what stands for a text of an owner; raise ``erased``."""
        return (await self.get_keys(tx, owner_id)).fingerprint(text, purpose)

    async def get_keys(self, tx: Tx, owner_id: str) -> OwnerKeys:
        """Return an owner's keys, making the first one; raise ``erased`` if it was destroyed."""
        found = await self.find_keys(tx, [owner_id])
        if owner_id not in found:
            if await tx.find(tx.select(DATA_KEY).where(DATA_KEY.c.owner_id == owner_id)):
                found = await self.find_keys(tx, [owner_id])  # unless made by another just now
                if owner_id not in found:
                    raise _erased(owner_id)
                return found[owner_id]
            return OwnerKeys(owner_id, {1: await self._make(tx, owner_id, 1)})
        return found[owner_id]

    async def find_keys(self, tx: Tx, owner_ids: Collection[str]) -> dict[str, OwnerKeys]:
        """Return the keys of those owners that have some."""
        there = DATA_KEY.c.owner_id.in_(owner_ids), DATA_KEY.c.wrapped.is_not(None)
        keys: dict[str, dict[int, bytes]] = {}
        for row in await tx.all(tx.select(DATA_KEY).where(*there)):
            keys.setdefault(row["owner_id"], {})[row["number"]] = self._unwrap(row)
        return {owner_id: OwnerKeys(owner_id, owned) for owner_id, owned in keys.items()}

    async def rotate(self, tx: Tx, owner_id: str) -> int:
        """Give an owner a new data key, which seals from now on; return its number."""
        number = (await self.get_keys(tx, owner_id)).newest + 1
        await self._make(tx, owner_id, number)
        return number

    async def destroy(self, tx: Tx, owner_id: str) -> int:
        """Destroy an owner's keys: nothing sealed with them opens again. Return how many.

        An owner without a key gets a destroyed one, so that none is ever made.
        """
        if not await self.list_keys_of(tx, owner_id):
            await self._make(tx, owner_id, 1)
        living = DATA_KEY.c.owner_id == owner_id, DATA_KEY.c.wrapped.is_not(None)
        destroyed = await tx.change(
            tx.update(DATA_KEY)
            .where(*living)
            .values(rev=DATA_KEY.c.rev + 1, wrapped=None, destroyed_at_us=tx.now_us)
        )
        if destroyed:
            last = (await self.list_keys_of(tx, owner_id))[-1]
            await append_revision(tx, "kit.data_key.destroyed", last.id, last.rev, last)
        return destroyed

    async def list_keys_of(self, tx: Tx, owner_id: str) -> Sequence[DataKey]:
        """Return an owner's keys, oldest first, destroyed ones too."""
        owned = tx.select(DATA_KEY).where(DATA_KEY.c.owner_id == owner_id)
        return [_data_key(row) for row in await tx.all(owned.order_by(DATA_KEY.c.number))]

    async def list_keys(self, tx: Tx, after: str, limit: int) -> Sequence[DataKey]:
        """Return all keys by owner and number, behind the ``id`` of one."""
        owner_id, _, number = after.rpartition("/")
        place = sa.tuple_(DATA_KEY.c.owner_id, DATA_KEY.c.number)
        statement = tx.select(DATA_KEY)
        if after:
            statement = statement.where(place > sa.tuple_(owner_id, _number(number)))
        ordered = statement.order_by(DATA_KEY.c.owner_id, DATA_KEY.c.number)
        return [_data_key(row) for row in await tx.all(ordered.limit(limit))]

    async def count_stale(self, tx: Tx) -> int:
        """Return how many data keys are wrapped by an older root key than the newest."""
        row = await tx.find(
            tx.select(DATA_KEY, sa.func.count().label("stale")).where(*self._stale())
        )
        return int(row["stale"]) if row else 0

    async def rewrap_next(self, tx: Tx, limit: int = PAGE) -> int:
        """Wrap the next data keys with the newest root key; return how many, 0 when all are."""
        stale = tx.select(DATA_KEY).where(*self._stale())
        rows = await tx.all(stale.order_by(DATA_KEY.c.owner_id, DATA_KEY.c.number).limit(limit))
        for row in rows:
            wrapped = self.root.wrap(row["owner_id"], _purpose(row["number"]), self._unwrap(row))
            guarded = tx.update(DATA_KEY).where(
                DATA_KEY.c.owner_id == row["owner_id"],
                DATA_KEY.c.number == row["number"],
                DATA_KEY.c.rev == row["rev"],
            )
            values = {"rev": row["rev"] + 1, "root": self.root.newest, "wrapped": wrapped}
            if await tx.change(guarded.values(**values)) != 1:
                raise PilotageError("conflict", "A data key was changed meanwhile.")
        return len(rows)

    async def check(self, tx: Tx) -> None:
        """Raise ``invalid_config`` unless the root keys at hand open a key of each that is used."""
        living = tx.select(DATA_KEY).where(DATA_KEY.c.wrapped.is_not(None))
        for root in await tx.all(
            tx.select(DATA_KEY, DATA_KEY.c.root).where(DATA_KEY.c.wrapped.is_not(None)).distinct()
        ):
            row = await tx.find(living.where(DATA_KEY.c.root == root["root"]).limit(1))
            if row is not None:
                self._unwrap(row)

    async def _make(self, tx: Tx, owner_id: str, number: int) -> bytes:
        key = sealing.make_key()
        made = DataKey(
            owner_id=owner_id,
            number=number,
            rev=1,
            root=self.root.newest,
            created_at_us=tx.now_us,
            destroyed_at_us=None,
        )
        values = {name: getattr(made, name) for name in made.__dataclass_fields__}
        wrapped = self.root.wrap(owner_id, _purpose(number), key)
        await tx.insert(DATA_KEY, **values, wrapped=wrapped)
        await append_revision(tx, "kit.data_key.created", made.id, 1, made)
        return key

    def _unwrap(self, row: Row) -> bytes:
        return self.root.unwrap(
            row["root"], row["owner_id"], _purpose(row["number"]), row["wrapped"]
        )

    def _stale(self) -> tuple[sa.ColumnElement[bool], ...]:
        return DATA_KEY.c.root < self.root.newest, DATA_KEY.c.wrapped.is_not(None)


def _purpose(number: int) -> str:
    return f"data_key/{number}"


def _number(text: str) -> int:
    try:
        return min(int(text), 2**31 - 1)
    except ValueError:
        raise PilotageError(
            "invalid_request",
            "That is not where a page of data keys can continue.",
            hint="Send 'next' of the page before as it is.",
            param="after",
        ) from None


def _data_key(row: Row) -> DataKey:
    return DataKey(**{name: row[name] for name in DataKey.__dataclass_fields__})


def _erased(owner_id: str) -> PilotageError:
    return PilotageError(
        "erased", f"What was sealed for {owner_id} is erased: its key is destroyed."
    )
