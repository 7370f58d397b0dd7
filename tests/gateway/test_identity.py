"""Who may call, and as whom."""

import pytest
from pydantic import SecretStr

from gateway.identity import Identity
from holdfast.configuration import Configuration
from holdfast.errors import ConfigurationError
from holdfast.ledger import Ledger
from holdfast.settings import ApiKey
from tests.gateway.recorded import Edge, opened, problem

GOOD = {"agent": "writer", "input": "Why?"}


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer"}, {"Authorization": "Bearer kx"}, {"Authorization": "Basic ka"}]
)
async def test_without_a_known_key_nothing_is_served(guarded: Edge, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/v1/requests"), ("GET", "/v1/requests/req_00000000"), ("GET", "/v1/approvals")):
        response = await guarded.http.request(method, path, headers=headers)
        problem(response, 401, "Authorization")
        assert response.headers["www-authenticate"].startswith("Bearer")
    assert guarded.engine.submitted == []


async def test_a_key_decides_tenant_user_and_tier_whatever_the_headers_say(guarded: Edge) -> None:
    await guarded.ask(GOOD, Authorization="bearer ko", X_Holdfast_User="ann")
    [request] = guarded.engine.submitted
    assert (request.tenant, request.user, request.tier) == ("other", "olga", "premium")


async def test_a_key_may_be_used_from_any_host(guarded: Edge) -> None:
    response = await guarded.ask(GOOD, Authorization="Bearer ka", Host="holdfast.example.org")
    assert response.status_code == 202


async def test_without_keys_the_caller_may_name_a_user(edge: Edge) -> None:
    await edge.ask(GOOD, X_Holdfast_User="o'hara@example.org")
    [request] = edge.engine.submitted
    assert (request.tenant, request.user) == ("local", "o'hara@example.org")


@pytest.mark.parametrize("user", ["", "u" * 129, 'a"b', "back\\slash", "ends'"])
async def test_an_unusable_user_name_is_refused(edge: Edge, user: str) -> None:
    problem(await edge.ask(GOOD, X_Holdfast_User=user), 400, "X-Holdfast-User")


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080"])
async def test_without_keys_loopback_names_are_served(edge: Edge, host: str) -> None:
    assert (await edge.ask(GOOD, Host=host)).status_code == 202


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.7:8080", "[", ""])
async def test_without_keys_a_rebound_name_is_not_served(edge: Edge, host: str) -> None:
    problem(await edge.ask(GOOD, Host=host), 421, "Host")
    assert edge.engine.submitted == []


@pytest.mark.parametrize(
    ("origin", "status"), [("https://evil.example", 403), ("null", 403), ("http://localhost:3000", 202)]
)
async def test_without_keys_pages_of_other_sites_are_not_served(edge: Edge, origin: str, status: int) -> None:
    response = await edge.ask(GOOD, Origin=origin)
    assert response.status_code == status
    if status == 403:
        problem(response, 403, "Origin")


async def test_health_is_told_without_a_key(configuration: Configuration, ledger: Ledger) -> None:
    async with opened(configuration, ledger, api_keys="k=acme/ann") as edge:
        assert (await edge.http.get("/healthz")).status_code == 200
        assert (await edge.http.get("/readyz", headers={"Host": "probe.internal"})).status_code == 200


@pytest.mark.parametrize(("site", "status"), [("same-site", 403), ("cross-site", 403), ("same-origin", 202)])
async def test_without_keys_a_page_at_another_port_of_this_machine_is_another_site(
    edge: Edge, site: str, status: int
) -> None:
    response = await edge.ask(GOOD, Origin="http://localhost:3000", Sec_Fetch_Site=site)
    assert response.status_code == status


@pytest.mark.parametrize("name", ['a"b', "a\\b", "'a"])
def test_a_name_that_no_query_could_find_is_refused_at_start(name: str) -> None:
    for names in ({"tenant": name, "user": "ann"}, {"tenant": "acme", "user": name}):
        with pytest.raises(ConfigurationError, match="HOLDFAST_API_KEYS"):
            Identity((ApiKey(key="secret-key", **names),))


@pytest.mark.parametrize("user", ["role:finance", "*", "deadline"])
async def test_nobody_is_called_like_a_role_like_everyone_or_like_the_deadline(edge: Edge, user: str) -> None:
    problem(await edge.ask(GOOD, X_Holdfast_User=user), 400, "X-Holdfast-User")
    with pytest.raises(ConfigurationError, match="called like a role"):
        Identity((ApiKey(key=SecretStr("k"), tenant="acme", user=user),))
