"""Model cards: what people say of a version, each change a revision of its own.

How complete a card is counts as evidence of kind ``card``, so that a gate can ask for it.
"""

from collections.abc import Mapping
from decimal import Decimal

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.registry import card_store as store
from pilotage.registry.evidence import EvidenceBook
from pilotage.registry.types import EvidenceDraft, ModelCard, NamedVersion

CARD_FIELDS = (
    "intended_use",
    "limits",
    "training_data",
    "evaluation",
    "ethical_notes",
    "contacts",
)
KIND_CARD = "card"
LONGEST_FIELD = 20_000


class ModelCards:
    """Writes and reads cards; never commits."""

    def __init__(self, clock: Clock, evidence: EvidenceBook) -> None:
        self._clock = clock
        self._evidence = evidence

    async def get_card(self, tx: Tx, version: NamedVersion, rev: int | None = None) -> ModelCard:
        """Return the newest revision of a card (empty, revision 0, before anybody wrote one).

        Raises ``not_found`` for a revision that there is not.
        """
        card = await store.find_card(tx, version.id, rev)
        if card is not None:
            return card
        if rev:
            raise PilotageError(
                "not_found", f"The card of {version.ref} has no revision {rev}.", param="rev"
            )
        return ModelCard(
            version_id=version.id,
            rev=0,
            project_id=version.project_id,
            fields={},
            created_at_us=version.created_at_us,
            created_by=version.created_by,
        )

    async def write_card(
        self,
        tx: Tx,
        version: NamedVersion,
        fields: Mapping[str, str],
        expected_rev: int | None = None,
    ) -> ModelCard:
        """Replace a card; raise ``precondition_failed`` if it has changed meanwhile."""
        before = await self.get_card(tx, version)
        fields = check_fields(fields)
        is_expected = expected_rev in (None, before.rev)
        if is_expected and before.rev and fields == before.fields:
            return before
        card = ModelCard(
            version_id=version.id,
            rev=before.rev + 1,
            project_id=version.project_id,
            fields=fields,
            created_at_us=tx.now_us,
            created_by=tx.actor.principal_id,
        )
        if not is_expected or not await store.insert_card(tx, card):
            raise PilotageError(
                "precondition_failed",
                f"The card of {version.ref} has changed meanwhile.",
                hint="Read it again and decide anew.",
            )
        await append_revision(tx, "registry.card.written", f"card_{version.id}", card.rev, card)
        await self._evidence.add(tx, version, assess_card(card))
        return card


def check_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields that say something, in order; raise ``invalid_request``."""
    for name, text in fields.items():
        if name not in CARD_FIELDS or len(text) > LONGEST_FIELD:
            raise PilotageError(
                "invalid_request",
                f"{name[:80]!r} is no field of a card, or longer than {LONGEST_FIELD} letters.",
                hint=f"Use: {', '.join(CARD_FIELDS)}.",
                param=name[:80],
            )
    written = {name: fields.get(name, "").strip() for name in CARD_FIELDS}
    return {name: text for name, text in written.items() if text}


def assess_card(card: ModelCard) -> EvidenceDraft:
    """Return how complete a card is, as evidence."""
    missing = [name for name in CARD_FIELDS if name not in card.fields]
    share = Decimal(len(CARD_FIELDS) - len(missing)) / len(CARD_FIELDS)
    return EvidenceDraft(
        kind=KIND_CARD,
        subject="completeness",
        value=share.quantize(Decimal("0.0001")),
        unit="ratio",
        n=len(CARD_FIELDS),
        passed=not missing,
        tool="pilotage",
        note=f"missing: {', '.join(missing)}" if missing else f"revision {card.rev}",
    )
