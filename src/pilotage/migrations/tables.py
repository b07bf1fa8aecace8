"""Every table of every slice, in one place for migrations to compare with."""

import sqlalchemy as sa

from pilotage.audit import hold_store as _holds
from pilotage.audit import store as _audit
from pilotage.endpoints import store as _endpoints
from pilotage.finops import store as _finops
from pilotage.finops import user_store as _users
from pilotage.finops.budgets import store as _budgets
from pilotage.finops.costs import store as _costs
from pilotage.finops.months import store as _months
from pilotage.finops.replicas import store as _replicas
from pilotage.governance import store as _governance
from pilotage.identity import issuer_store as _issuers
from pilotage.identity import principal_store as _principals
from pilotage.identity import store as _identity
from pilotage.kit import idempotency as _idempotency
from pilotage.kit import operations as _operations
from pilotage.kit import outbox as _outbox
from pilotage.kit import secrets as _secrets
from pilotage.kit.db import METADATA
from pilotage.monitoring.alerts import store as _alerts
from pilotage.monitoring.calls import store as _calls
from pilotage.monitoring.drift import store as _drift
from pilotage.monitoring.infrastructure import store as _infrastructure
from pilotage.monitoring.notify import store as _notify
from pilotage.monitoring.quality import store as _quality
from pilotage.monitoring.rollups import store as _rollups
from pilotage.publisher import store as _publisher
from pilotage.registry import card_store as _cards
from pilotage.registry import evidence_store as _evidence
from pilotage.registry import gate_store as _gates
from pilotage.registry import lineage_store as _lineage
from pilotage.registry import store as _registry
from pilotage.registry.artifacts import store as _artifacts
from pilotage.registry.datasets import store as _datasets
from pilotage.registry.prompts import store as _prompts
from pilotage.rollouts import store as _rollouts
from pilotage.rollouts.measuring import store as _measuring
from pilotage.rollouts.replay import store as _replays
from pilotage.rollouts.samples import store as _samples
from pilotage.rollouts.shadows import store as _shadows

_STORES = (
    _alerts,
    _artifacts,
    _audit,
    _calls,
    _budgets,
    _cards,
    _costs,
    _datasets,
    _drift,
    _endpoints,
    _evidence,
    _finops,
    _gates,
    _governance,
    _holds,
    _identity,
    _idempotency,
    _infrastructure,
    _issuers,
    _lineage,
    _measuring,
    _months,
    _notify,
    _operations,
    _outbox,
    _principals,
    _prompts,
    _publisher,
    _quality,
    _registry,
    _replicas,
    _replays,
    _rollouts,
    _samples,
    _shadows,
    _rollups,
    _secrets,
    _users,
)


def get_metadata() -> sa.MetaData:
    """Return the metadata that the stores have filled."""
    return METADATA
