"""Where a key stands and what a role may do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.identity.rules import (
    MOST_FEATURES,
    assess_key,
    check_grant,
    check_profile,
    check_tenant,
    is_allowed,
)
from pilotage.identity.types import (
    ApiKey,
    KeyState,
    Principal,
    PrincipalKind,
    Profile,
    Role,
    TenantSettings,
)

TIMES = st.integers(0, 100)


def make_key(expires_at_us: int | None, revoked_at_us: int | None) -> ApiKey:
    return ApiKey(
        id="key_1",
        rev=1,
        project_id="prj_1",
        tenant_id="ten_1",
        name="ci",
        digest=bytes(32),
        hint="abcd",
        created_at_us=0,
        expires_at_us=expires_at_us,
        revoked_at_us=revoked_at_us,
    )


@given(st.none() | TIMES, st.none() | TIMES, TIMES)
def test_a_key_is_active_until_it_expires_or_is_revoked(
    expires: int | None, revoked: int | None, now: int
) -> None:
    state = assess_key(make_key(expires, revoked), now)

    assert (state == KeyState.REVOKED) == (revoked is not None)
    if revoked is None:
        is_over = expires is not None and expires <= now
        assert state == (KeyState.EXPIRED if is_over else KeyState.ACTIVE)


def test_a_key_lives_until_the_moment_it_expires_at() -> None:
    assert assess_key(make_key(10, None), 9) == KeyState.ACTIVE
    assert assess_key(make_key(10, None), 10) == KeyState.EXPIRED


@pytest.mark.parametrize(
    ("role", "permission", "may"),
    [
        (Role.ADMIN, "identity.keys.create", True),
        (Role.ADMIN, "identity.self.read", True),
        (Role.VIEWER, "identity.keys.read", True),
        (Role.VIEWER, "identity.keys.create", False),
        (Role.VIEWER, "identity.principals.read", False),
        (Role.VIEWER, "audit.log.read", False),
        (Role.GATEWAY, "remote.spool.append", True),
        (Role.GATEWAY, "registry.models.read", False),
        (Role.ADMIN, "remote.spool.append", False),
        (Role.ADMIN, "strange.things.do", False),
        (Role.ADMIN, "identity.keys", False),
        ("", "identity.keys.read", False),
        ("Admin", "identity.keys.read", False),
    ],
)
def test_roles(role: str, permission: str, *, may: bool) -> None:
    assert is_allowed({role}, permission) is may


def test_without_a_role_nothing_is_allowed_and_any_of_several_will_do() -> None:
    assert not is_allowed((), "registry.models.read")
    assert is_allowed((Role.PREDICTOR, Role.VIEWER), "registry.models.read")


def make_principal(kind: PrincipalKind) -> Principal:
    return Principal(id="usr_1", rev=1, kind=kind, name="ada", created_at_us=1)


@pytest.mark.parametrize(
    ("kind", "role", "by", "ttl_us", "code"),
    [
        (PrincipalKind.USER, Role.VIEWER, "usr_1", None, "permission_denied"),
        (PrincipalKind.USER, Role.GATEWAY, "usr_2", None, "invalid_request"),
        (PrincipalKind.GATEWAY, Role.ADMIN, "usr_2", None, "invalid_request"),
        (PrincipalKind.USER, Role.VIEWER, "usr_2", 0, "invalid_request"),
    ],
)
def test_roles_that_nobody_may_give(
    kind: PrincipalKind, role: Role, by: str, ttl_us: int | None, code: str
) -> None:
    with pytest.raises(PilotageError) as refused:
        check_grant(make_principal(kind), role, by, ttl_us)

    assert refused.value.code == code


def test_roles_that_somebody_else_may_give() -> None:
    check_grant(make_principal(PrincipalKind.USER), Role.APPROVER, "usr_2", None)
    check_grant(make_principal(PrincipalKind.SERVICE_ACCOUNT), Role.VIEWER, "usr_2", 1)
    check_grant(make_principal(PrincipalKind.GATEWAY), Role.GATEWAY, "usr_2", None)


def test_what_is_known_of_a_person_must_look_like_it() -> None:
    known = Profile(display_name="Ada Lovelace", email="ada@example.org")

    assert check_profile(known) is known
    assert check_profile(Profile()) == Profile()
    for wrong, param in (
        (Profile(display_name="a" * 201), "display_name"),
        (Profile(email="ada"), "email"),
        (Profile(email="a da@example.org"), "email"),
    ):
        with pytest.raises(PilotageError) as refused:
            check_profile(wrong)
        assert refused.value.param == param


def test_settings_of_a_tenant_name_everything_once() -> None:
    checked = check_tenant(
        TenantSettings(regions=("eu", "us", "eu"), features=("b", "a/x", "b"), log_share=10_000)
    )

    assert (checked.regions, checked.features) == (("eu", "us"), ("b", "a/x"))
    assert checked.log_share == 10_000


@pytest.mark.parametrize(
    ("settings", "param", "problem"),
    [
        (TenantSettings(regions=("Europe",)), "regions", "'Europe' is no region"),
        (TenantSettings(features=("",)), "features", "'' is no feature"),
        (TenantSettings(features=("a b",)), "features", "'a b' is no feature"),
        (TenantSettings(features=("x" * 65,)), "features", "is no feature"),
        (
            TenantSettings(features=tuple(f"f{n}" for n in range(MOST_FEATURES + 1))),
            "features",
            "at most",
        ),
        (TenantSettings(log_share=-1), "log_percent", "-1 basis points"),
        (TenantSettings(log_share=10_001), "log_percent", "10001 basis points"),
        (TenantSettings(measure_share=-1), "measure_percent", "-1 basis points"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    settings: TenantSettings, param: str, problem: str
) -> None:
    with pytest.raises(PilotageError) as refused:
        check_tenant(settings)

    assert (refused.value.code, refused.value.param) == ("invalid_request", param)
    assert problem in refused.value.detail
