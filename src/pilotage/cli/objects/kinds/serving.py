"""Kinds of serving: prices, upstreams, endpoints, limits."""

from decimal import Decimal
from typing import Any

import msgspec

from pilotage.cli.limits import MEASURES, read_amount
from pilotage.cli.objects.kinds.base import (
    Object,
    Part,
    check_percent,
    join,
    list_given,
)
from pilotage.core.addresses import CHECKS, check_model, check_secret_kind
from pilotage.core.duration import parse_duration_us
from pilotage.core.limits import check_amount, check_downgrade, format_amount
from pilotage.core.money import format_usd, parse_usd
from pilotage.core.names import check_alias, check_name
from pilotage.core.regions import check_regions
from pilotage.core.semver import parse_semver
from pilotage.endpoints.types import MAX_CONNECTIONS, MOST_RETRIES, POLICIES, Provider
from pilotage.finops.types import Action, StoreLoss
from pilotage.identity.types import DATA_CLASSES
from pilotage.kit.clock import parse_time

CLASSES = ("input", "output", "cache_read", "cache_write", "reasoning")


class PriceObject(Object, frozen=True, rename={"valid_from": "from"}):
    """A price of MODEL or MODEL@VERSION."""

    model: str
    input: str | None = None
    output: str | None = None
    cache_read: str | None = None
    cache_write: str | None = None
    reasoning: str | None = None
    free: bool = False
    valid_from: str | None = None

    @property
    def title(self) -> str:
        """What it is for."""
        return self.model

    @property
    def rates(self) -> dict[str, Decimal]:
        """All five rates, the ones left out as the API fills them in."""
        given = self.input or "0", self.output or "0"
        defaults = dict(zip(CLASSES, (*given, given[0], given[0], given[1]), strict=True))
        return {name: Decimal(getattr(self, name) or defaults[name]) for name in CLASSES}

    def check(self) -> None:
        """Check the rates and the time."""
        name, is_version, version = self.model.partition("@")
        check_alias(name, "model")
        if is_version and not version.isdecimal():  # providers date their models
            parse_semver(version)
        for part in CLASSES:
            text = getattr(self, part)
            if text is not None:
                _check_rate(part, text)
        if not self.free and (self.input is None or self.output is None):
            raise ValueError("input: a price has input and output, or is free")
        if self.free == any(self.rates.values()):
            raise ValueError("free: true goes with rates of zero, and only with them")
        if self.valid_from is not None:
            parse_time(self.valid_from)


class UpstreamObject(Object, frozen=True):
    """An upstream; what is left out stays as it is."""

    name: str
    provider: str | None = None
    base_url: str | None = None
    secret: str | None = None
    location: str | None = None
    proxy: str | None = None
    ca_file: str | None = None
    max_connections: int | None = None
    accepts: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What it sets, as the API shows it."""
        found = list_given(self, "name", "project")
        return found | {name: CHECKS[name](found[name]) for name in CHECKS if name in found}

    def check(self) -> None:
        """Check everything of it that is given."""
        check_name(self.name)
        if self.provider is not None and self.provider not in list(Provider):
            raise ValueError(f"provider: {self.provider!r} is none of {join(list(Provider))}")
        if not 1 <= (self.max_connections or 1) <= MAX_CONNECTIONS:
            raise ValueError(f"max_connections: use 1 to {MAX_CONNECTIONS}")
        if self.accepts is not None and self.accepts not in DATA_CLASSES:
            raise ValueError(f"accepts: {self.accepts!r} is none of {join(DATA_CLASSES)}")
        check_secret_kind(self.provider or "", self.secret or "")
        _ = self.settings


class Share(Part, frozen=True):
    """A deployment of an endpoint and its percentage of the traffic."""

    model: str
    upstream: str | None = None
    context_tokens: int | None = None
    engine: str | None = None
    share: Decimal | None = None

    @property
    def ref(self) -> str:
        """``MODEL@VERSION``, or ``UPSTREAM/MODEL``."""
        return self.model if self.upstream is None else f"{self.upstream}/{self.model}"

    @property
    def body(self) -> dict[str, Any]:
        """How the API is asked for it."""
        return list_given(self, "share")

    def check(self) -> None:
        """Check the names and the share."""
        if self.upstream is not None:
            check_name(self.upstream, "deployments")
            check_model(self.model)
            if self.engine is not None:
                raise ValueError("deployments: engine is for versions, an upstream has its own")
        else:
            name, is_version, version = self.model.partition("@")
            if not is_version:
                raise ValueError(
                    f"deployments: {self.model!r} names no version, write NAME@VERSION"
                )
            check_name(name, "deployments")
            parse_semver(version)
            if self.context_tokens is not None:
                raise ValueError("deployments: context_tokens is for models of an upstream")
        if self.share is not None:
            check_percent(self.share, "deployments")


class Rule(Part, frozen=True):
    """Calls that match everything given may only use these deployments."""

    deployments: list[str]
    tenants: list[str] = msgspec.field(default_factory=list)
    purposes: list[str] = msgspec.field(default_factory=list)
    data_classes: list[str] = msgspec.field(default_factory=list)
    min_input: int = 0
    max_input: int = 0


class ShadowPart(Part, frozen=True):
    """A deployment that gets a copy of some calls."""

    deployment: str
    percent: Decimal
    daily_usd: Decimal
    concurrency: int = 4


class RoutingPart(Part, frozen=True):
    """How calls find their deployment; what is left out stays as it is."""

    policy: str | None = None
    rules: list[Rule] | None = None
    fallbacks: list[str] | None = None
    retries: int | None = None
    first_byte_timeout: str | None = None
    shadow: ShadowPart | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def settings(self) -> dict[str, Any]:
        """What it sets, as the API shows it."""
        found = list_given(self, "first_byte_timeout", "rules", "shadow")
        if self.first_byte_timeout is not None:
            found["first_byte_timeout_ms"] = parse_duration_us(self.first_byte_timeout) // 1000
        if self.rules is not None:
            found["rules"] = [msgspec.structs.asdict(rule) for rule in self.rules]
        if self.shadow is None:
            found["shadow"] = None
        elif isinstance(self.shadow, ShadowPart):
            found["shadow"] = msgspec.structs.asdict(self.shadow) | {
                "percent": float(self.shadow.percent),
                "daily_usd": format_usd(parse_usd(str(self.shadow.daily_usd))),
            }
        return found

    @property
    def named(self) -> dict[str, str]:
        """The deployments that it names, each with the field that does."""
        found = dict.fromkeys(self.fallbacks or [], "routing.fallbacks")
        for number, rule in enumerate(self.rules or []):
            found |= dict.fromkeys(rule.deployments, f"routing.rules.{number}.deployments")
        if isinstance(self.shadow, ShadowPart):
            found[self.shadow.deployment] = "routing.shadow.deployment"
        return found

    def check(self) -> None:
        """Check what can be checked without the deployments."""
        if self.policy is not None and self.policy not in POLICIES:
            raise ValueError(f"routing.policy: {self.policy!r} is none of {join(POLICIES)}")
        if self.retries is not None and not 0 <= self.retries <= MOST_RETRIES:
            raise ValueError(f"routing.retries: {self.retries} is not 0 to {MOST_RETRIES}")
        if self.first_byte_timeout is not None:
            parse_duration_us(self.first_byte_timeout)
        for rule in self.rules or []:
            for name in rule.data_classes:
                if name not in DATA_CLASSES:
                    raise ValueError(f"routing.rules: {name!r} is none of {join(DATA_CLASSES)}")
        if isinstance(self.shadow, ShadowPart):
            check_percent(self.shadow.percent, "routing.shadow.percent")
            parse_usd(str(self.shadow.daily_usd))


class ScalingPart(Part, frozen=True):
    """What an endpoint's deployments begin with; what is left out is as usual."""

    min_replicas: int | None = None
    max_replicas: int | None = None
    target_in_flight: int | None = None
    max_wait_ms: int | None = None
    target_duty_percent: int | None = None
    scale_down_delay_s: int | None = None
    idle_after_s: int | None = None
    memory_bytes: int | None = None
    cpu_cores: int | None = None
    threads: int | None = None
    slots: int | None = None
    context_tokens: int | None = None


class EndpointObject(Object, frozen=True):
    """An endpoint; what is left out stays as it is."""

    name: str
    description: str | None = None
    max_output_tokens: int | None = None
    display_name: str | None = None
    labels: dict[str, str] | None = None
    dedicated: bool | None = None
    region: str | None = None
    scaling: ScalingPart | None = None
    deployments: list[Share] | None = None
    routing: RoutingPart | None = None
    regions: list[str] | None = None

    @property
    def shares(self) -> dict[str, Decimal]:
        """Percentages by what people write; a deployment alone has all."""
        listed = self.deployments or []
        whole = Decimal(100) if len(listed) == 1 else Decimal(0)
        return {item.ref: whole if item.share is None else item.share for item in listed}

    @property
    def route(self) -> dict[str, Any]:
        """What it sets of the routing, as the API takes it."""
        found = self.routing.settings if self.routing else {}
        return found if self.regions is None else found | {"regions": self.regions}

    def check(self) -> None:
        """Check names and shares."""
        check_alias(self.name)
        check_regions(self.regions or [])
        if self.routing is not None:
            self.routing.check()
        if self.deployments is None:
            return
        for item in self.deployments:
            item.check()
            if item.share is None and len(self.deployments) > 1:
                raise ValueError(f"deployments: {item.ref} has no share")
        if len(self.shares) < len(self.deployments):
            raise ValueError("deployments: something is named twice")
        if self.deployments and sum(self.shares.values()) != 100:
            raise ValueError(f"deployments: the shares sum to {sum(self.shares.values())}, not 100")


class LimitObject(Object, frozen=True):
    """A limit of one thing; what is left out is the default, also where it was something else."""

    name: str
    usd: str | None = None
    tokens: str | None = None
    requests: str | None = None
    concurrency: str | None = None
    tenant: str = ""
    key: str = ""
    user: str = ""
    endpoint: str = ""
    action: str = "block"
    downgrade_to: str = ""
    on_store_loss: str = "closed"

    @property
    def settings(self) -> dict[str, str]:
        """What it says, as the API shows it but for names."""
        amounts = {name: getattr(self, name) for name in MEASURES}
        read = read_amount({name: text for name, text in amounts.items() if text is not None})
        if not read:
            raise ValueError(f"a limit is of one of {join(MEASURES)}")
        amount = check_amount(read["measure"], read["amount"], read["per"])
        said = ("tenant", "key", "user", "endpoint", "action", "downgrade_to", "on_store_loss")
        return (
            read
            | {name: getattr(self, name) for name in said}
            | {"amount": format_amount(read["measure"], amount)}
        )

    def check(self) -> None:
        """Check everything that can be checked without the API."""
        check_name(self.name)
        if self.key not in {"", "*"} and self.tenant in {"", "*"}:
            raise ValueError("tenant: a key's name needs its tenant")
        for field, words in (("action", Action), ("on_store_loss", StoreLoss)):
            if getattr(self, field) not in list(words):
                raise ValueError(
                    f"{field}: {getattr(self, field)!r} is none of {join(list(words))}"
                )
        if (self.action == Action.DOWNGRADE) != bool(self.downgrade_to):
            raise ValueError("downgrade_to: it goes with the action downgrade, and only with it")
        said = self.settings
        if self.downgrade_to:
            check_downgrade(said["measure"], said["per"], self.endpoint, self.downgrade_to)


def _check_rate(part: str, text: str) -> None:
    if not text.replace(".", "", 1).isdecimal():
        raise ValueError(f"{part}: {text!r} is no rate, write USD per million tokens such as 0.15")
    try:
        parse_usd(text)
    except ValueError as wrong:
        raise ValueError(f"{part}: {wrong}") from None
