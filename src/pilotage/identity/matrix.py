"""The permission matrix: which role may do what. This table is the only place that says so.

A permission is ``slice.noun.verb``; a row names one, or several by ``*`` for a whole part. The
first row that fits decides, so special cases stand above the rule they are an exception of. What
no row fits is allowed to nobody (and a test fails: every route's permission has its row).
"""

from dataclasses import dataclass
from functools import cache

from pilotage.identity.types import Role

VIEWER, ENGINEER, OPS, PREDICTOR = Role.VIEWER, Role.ML_ENGINEER, Role.ML_OPS, Role.PREDICTOR
APPROVER, AUDITOR, SECURITY, ADMIN = Role.APPROVER, Role.AUDITOR, Role.SECURITY, Role.ADMIN
GATEWAY = Role.GATEWAY

READERS = (VIEWER, ENGINEER, OPS, APPROVER, AUDITOR, SECURITY, ADMIN)
PEOPLE = (*READERS, PREDICTOR)
MAKERS = (ENGINEER, OPS, ADMIN)
OPERATORS = (OPS, ADMIN)
GUARDIANS = (SECURITY, ADMIN)
WATCHERS = (AUDITOR, SECURITY, ADMIN)

# Permissions on the whole installation for which a role in any one project is enough: their
# handlers show nothing but what the caller has a role in.
ANYWHERE = frozenset({"identity.projects.read", "identity.self.read", "identity.self.rotate"})


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: the permissions it is about, who has them, and why where that needs saying."""

    permissions: str
    roles: tuple[Role, ...]
    why: str = ""

    def fits(self, permission: str) -> bool:
        """Say whether the row is about a permission."""
        parts, asked = self.permissions.split("."), permission.split(".")
        return len(parts) == len(asked) and all(
            part in ("*", other) for part, other in zip(parts, asked, strict=True)
        )


MATRIX = (
    Rule("remote.*.*", (GATEWAY,), "what a gateway that runs apart needs, and nothing else"),
    # identity
    Rule("identity.self.*", PEOPLE, "who am I, and another credential for myself"),
    Rule("identity.projects.read", PEOPLE, "only those in which one has a role"),
    Rule("identity.projects.*", (ADMIN,)),
    Rule("identity.tenants.read", READERS),
    Rule("identity.tenants.erase", (SECURITY,), "it cannot be undone"),
    Rule("identity.keys.read", READERS, "keys are shown without their texts"),
    Rule("identity.*.read", WATCHERS, "who may do what is nobody else's business"),
    Rule("identity.*.*", GUARDIANS, "nobody may give a role to themselves"),
    # the audit log
    Rule("audit.*.*", WATCHERS),
    # governance
    Rule("governance.*.read", READERS),
    Rule(
        "governance.approval.vote",
        (*MAKERS, APPROVER, SECURITY),
        "withdrawing one's own; to approve or reject takes the role that the request names",
    ),
    Rule("governance.approval.*", (*MAKERS, SECURITY)),
    Rule("governance.decision.annotate", (*MAKERS, APPROVER, AUDITOR, SECURITY)),
    Rule("governance.freeze.*", (*OPERATORS, SECURITY)),
    Rule("governance.release.*", OPERATORS),
    # the registry
    Rule("registry.*.read", READERS),
    Rule("registry.prompts.render", READERS),
    Rule("registry.prompts.tag", OPERATORS, "moving a label changes what calls say"),
    Rule("registry.pickles.allow", GUARDIANS, "loading one runs what it says"),
    Rule("registry.blobs.collect", OPERATORS),
    Rule("registry.datasets.retain", (*OPERATORS, SECURITY), "a hold is a matter of law"),
    Rule("registry.gates.change", GUARDIANS, "whoever is checked does not say by what"),
    Rule("registry.*.*", MAKERS),
    # traffic
    Rule("endpoints.endpoint.read", PEOPLE, "a caller may see what it can call"),
    Rule("endpoints.*.read", READERS),
    Rule("endpoints.release_policy.change", GUARDIANS, "the same"),
    Rule(
        "endpoints.upstream.trust",
        GUARDIANS,
        "whoever operates upstreams does not say alone which data they may see",
    ),
    Rule("endpoints.*.*", OPERATORS),
    # rollouts
    Rule("rollouts.*.read", READERS),
    Rule("rollouts.rollout.plan", READERS, "it keeps nothing and moves nothing"),
    Rule("rollouts.*.*", OPERATORS),
    # money
    Rule("finops.users.reveal", WATCHERS, "who the end users are is personal data"),
    Rule("finops.*.read", READERS),
    Rule("finops.*.*", OPERATORS),
    # the numbers
    Rule("monitoring.queries.run", READERS, "calls are what the ledger shows as well"),
    Rule("publisher.*.read", READERS),
    Rule("publisher.*.*", GUARDIANS, "a gateway holds a credential"),
    # monitoring
    Rule("monitoring.comments.reveal", WATCHERS, "people write what they like"),
    Rule("monitoring.*.read", READERS),
    Rule("monitoring.alert_rule.check", READERS, "it keeps nothing and tells nobody"),
    Rule("monitoring.*.*", OPERATORS),
    # the installation
    Rule("kit.backups.create", GUARDIANS, "everything is in it"),
    Rule("kit.data_keys.read", WATCHERS),
    Rule("kit.data_keys.rotate", GUARDIANS),
    Rule("kit.root_keys.rotate", GUARDIANS),
    Rule("kit.operations.read", READERS),
    Rule(
        "kit.operations.cancel",
        (*MAKERS, SECURITY),
        "it takes the permission that starts such an operation as well",
    ),
)


@cache
def list_roles(permission: str) -> frozenset[Role]:
    """Return the roles that hold a permission; nobody holds one that no row is about."""
    for rule in MATRIX:
        if rule.fits(permission):
            return frozenset(rule.roles)
    return frozenset()
