"""Who may come in: every route needs a key unless it is health, and a loopback server answers local names only."""

import base64

import pytest

from reason_engine.serving.guard.access import Keys, accepted_hosts
from reason_engine.settings import Settings

KEYED = Settings(api_keys=("first-key", "second-key"), operator_keys=("boss-key",), host="0.0.0.0")
OPEN = {"/health", "/health/live", "/health/ready"}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


BAD_HEADERS = {
    "none": {},
    "wrong": {"authorization": "Bearer nope"},
    "empty": {"authorization": "Bearer "},
    "scheme": {"authorization": "Token first-key"},
    "raw": {"authorization": "first-key"},
    "basic of rubbish": {"authorization": "Basic first-key"},
    "basic of wrong": {"authorization": basic("u", "nope")},
    "prefix": {"authorization": "Bearer first-ke"},
    "longer": {"authorization": "Bearer first-key1"},
    "both": {"authorization": "Bearer first-key, Bearer second-key"},
    "bad host": {"host": "a/?x="},
    "not utf-8": {"authorization": b"Bearer \xff\xfe"},
}


@pytest.mark.parametrize("headers", BAD_HEADERS.values(), ids=BAD_HEADERS)
async def test_every_route_but_health_needs_a_key(local, headers) -> None:
    async with local(settings=KEYED) as house:
        paths = {
            str(route.path).replace("{name:path}", "x").replace("{response_id}", "x") for route in _routes(house.app)
        }
        assert {"/", "/docs", "/openapi.json", "/metrics", "/v1/chat/completions", "/version"} <= paths
        for path in paths:
            for shape in (path, f"/{path}", f"{path}/", path.replace("v1", "%76%31"), f"/health/%2e%2e{path}"):
                for method in ("GET", "POST", "HEAD", "OPTIONS"):
                    got = await house.http.request(method, f"http://127.0.0.1{shape}", headers=headers)
                    if path in OPEN and "%2e" not in shape:
                        assert got.status_code in (200, 405)
                    else:
                        assert got.status_code == 401, (method, shape, got.status_code)
        assert house.engine.requests == 0


def _routes(app):
    found = []
    for route in app.routes:
        found += _routes(route) if getattr(route, "routes", None) else []
        found += [route] if getattr(route, "path", None) else []
    return found


@pytest.mark.parametrize(
    "value", ["Bearer first-key", "bearer second-key", "Bearer boss-key", basic("anyone", "first-key")]
)
async def test_every_key_opens_by_bearer_or_by_a_browsers_password(local, value) -> None:
    async with local(settings=KEYED) as house:
        assert (await house.http.get("/v1/models", headers={"authorization": value})).status_code == 200


async def test_the_refusal_has_the_clients_shape(local) -> None:
    async with local(settings=KEYED) as house:
        got = await house.chat()
        assert (
            got.json()["error"]["code"] == "invalid_api_key" and got.json()["error"]["type"] == "authentication_error"
        )
        assert got.headers["x-request-id"] and "basic" in got.headers["www-authenticate"].lower()
        assert "first-key" not in got.text


def test_all_keys_are_compared_each_time(monkeypatch) -> None:
    import hmac

    seen = []
    real = hmac.compare_digest
    monkeypatch.setattr(
        "reason_engine.serving.guard.access.hmac.compare_digest", lambda a, b: seen.append(1) or real(a, b)
    )
    keys = Keys(["a", "b", "c"])
    assert keys.allow("/v1/models", [(b"authorization", b"Bearer a")]) and len(seen) == 3


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:8000", 200), ("LOCALHOST:1", 200), ("evil.example", 403),
        ("evil.example:8000", 403), ("127.0.0.1.evil.example", 403), ("a/?x=", 403), ("", 403), ("mine.example", 200),
    ],
)  # fmt: skip
async def test_a_loopback_server_answers_local_names_only(local, host, status) -> None:
    async with local(settings=Settings(allowed_hosts=("mine.example",))) as house:
        got = await house.http.get("/v1/models", headers={"host": host})
        assert got.status_code == status
        assert status == 200 or got.json()["error"]["code"] == "host_not_allowed"


def test_which_hosts_a_server_accepts() -> None:
    assert accepted_hosts("0.0.0.0", ()) is None
    assert accepted_hosts("127.0.0.1", ("*",)) is None
    assert accepted_hosts("10.0.0.1", ("api.example",)) == {"10.0.0.1", "api.example"}


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://127.0.0.1", 200), ("http://evil.example", 403), ("https://127.0.0.1.evil.example", 403), ("null", 403)],
)
async def test_other_sites_pages_get_nothing(local, origin, status) -> None:
    async with local() as house:
        got = await house.http.get("/v1/models", headers={"origin": origin})
        assert got.status_code == status
        assert not any(name.startswith("access-control") for name in got.headers)


async def test_a_websocket_is_closed(local) -> None:
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message) -> None:
        sent.append(message)

    async with local() as house:
        scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "raw_path": b"/"}
        await house.app(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
