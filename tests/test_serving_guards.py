"""Who may use the service, from which page, by which name, how often; and what a browser may do with its answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.requests import Request

from captioning.serving import headers, problems
from captioning.serving.keys import Keys
from captioning.serving.problems import Problem
from captioning.serving.rates import MAX_CLIENTS, Rates, client_address
from captioning.serving.settings import ServiceSettings

FIRST, SECOND = "first-key-0123456789", "second-key-0123456789"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAPTIONING_API_KEYS", raising=False)


def serve(**settings: object) -> TestClient:
    """Return a client of an application of one route behind the guards."""
    app = FastAPI()
    problems.install(app)
    headers.install(app, ServiceSettings.model_validate(settings))

    @app.get("/models")
    async def models() -> str:
        return "models"

    @app.get("/healthz")
    async def healthz() -> str:
        return "alive"

    return TestClient(app, base_url="http://127.0.0.1:8000")


def asked(client: str = "203.0.113.9", path: str = "/models", **stated: str) -> Request:
    """Return a request as a server hands it on."""
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in stated.items()]
    return Request(
        {
            "type": "http",
            "method": "GET",
            "path": path,
            "headers": named,
            "client": (client, 1),
            "query_string": b"",
        }
    )


# --- headers


def test_every_answer_says_what_a_browser_may_do_with_it() -> None:
    for path, status in (("/healthz", 200), ("/nothing", 404)):
        answer = serve().get(path)
        policy = answer.headers["content-security-policy"]
        assert answer.status_code == status
        assert "script-src 'self';" in policy and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "camera=()" in answer.headers["permissions-policy"]


# --- names and pages


@pytest.mark.parametrize(
    "host",
    [
        "localhost:8000",
        "127.0.0.1",
        "10.1.2.3:8000",
        "[::1]:8000",
        "captioning",
        "a.default.svc.cluster.local",
    ],
)
def test_a_local_name_or_an_ip_address_reaches_the_service(host: str) -> None:
    assert serve().get("/models", headers={"Host": host}).status_code == 200


def test_a_name_of_the_outside_reaches_the_service_only_where_a_setting_names_it() -> None:
    answer = serve().get("/models", headers={"Host": "evil.example.com"})
    assert answer.status_code == 400
    assert answer.json()["detail"] == (
        "this service is not known as 'evil.example.com'; start it with the setting allowed_hosts"
    )
    named = serve(allowed_hosts=("captions.museum.org",))
    assert named.get("/models", headers={"Host": "Captions.museum.org:443"}).status_code == 200
    assert named.get("/models", headers={"Host": "museum.org"}).status_code == 400


@pytest.mark.parametrize(
    "sent",
    [
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:8000"},
    ],
)
def test_a_page_of_another_site_may_not_use_the_service(sent: dict[str, str]) -> None:
    answer = serve().get("/models", headers=sent)
    assert (answer.status_code, answer.json()["title"]) == (403, "Cross-site request")
    assert "access-control-allow-origin" not in answer.headers
    assert serve().get("/healthz", headers=sent).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [{}, {"Origin": "http://127.0.0.1:8000"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}],
)
def test_our_own_page_and_a_program_may_use_the_service(sent: dict[str, str]) -> None:
    assert serve().get("/models", headers=sent).status_code == 200


def test_a_page_that_a_setting_names_may_use_the_service_and_reads_its_refusals() -> None:
    client = serve(cors_origins=("https://museum.org",), keys_file=None)
    sent = {"Origin": "https://museum.org", "Sec-Fetch-Site": "cross-site"}
    answer = client.get("/models", headers=sent)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://museum.org")
    preflight = sent | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key",
    }
    assert client.options("/captions", headers=preflight).status_code == 200
    other = client.get("/models", headers={"Origin": "https://evil.org"})
    assert other.status_code == 403 and "access-control-allow-origin" not in other.headers


def test_what_the_service_asked_itself_is_refused() -> None:
    answer = serve().get("/models", headers={"CDN-Loop": "other, captioning-serve"})
    assert (answer.status_code, answer.json()["detail"][:40]) == (
        403,
        "the address leads back to this service, ",
    )


# --- keys


def test_without_keys_none_is_needed() -> None:
    assert serve().get("/models").status_code == 200


def test_each_key_of_the_environment_opens_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONING_API_KEYS", f"{FIRST}, {SECOND}")
    client = serve()
    assert client.get("/models", headers={"X-API-Key": FIRST}).status_code == 200
    assert client.get("/models", headers={"Authorization": f"Bearer {SECOND}"}).status_code == 200
    assert client.get("/healthz").status_code == 200
    for sent, what in (
        ({}, "holds no key"),
        ({"X-API-Key": FIRST[:-1]}, "holds a key that is not valid"),
        ({"X-API-Key": "Ähm".encode()}, "holds a key that is not valid"),
        ({"Authorization": f"Basic {FIRST}"}, "holds no key"),
    ):
        answer = client.get("/models", headers=sent)
        assert answer.status_code == 401
        assert answer.json()["detail"] == f"the request {what}; send yours in the header X-API-Key"
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_keys_of_a_file_change_while_the_service_runs(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of the museum\n{FIRST} # Ada\n")
    keys = Keys(file)
    keys.check(asked(x_api_key=FIRST))
    (tmp_path / "new").write_text(SECOND)
    (tmp_path / "new").replace(file)
    keys.check(asked(x_api_key=SECOND))
    with pytest.raises(Problem, match="holds a key that is not valid"):
        keys.check(asked(x_api_key=FIRST))
    file.write_text("")  # by mistake: the service is not open to all
    with pytest.raises(Problem, match="holds no key"):
        keys.check(asked())
    file.unlink()
    keys.check(asked(x_api_key=SECOND))


def test_a_key_that_can_be_guessed_or_a_file_without_keys_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"the file of API keys cannot be read.*correct keys_file"):
        Keys(tmp_path / "absent")
    (tmp_path / "empty").write_text("# none yet\n")
    with pytest.raises(ValueError, match="holds no API key; write one a line"):
        Keys(tmp_path / "empty")
    monkeypatch.setenv("CAPTIONING_API_KEYS", "secret")
    with pytest.raises(ValueError, match="an API key of 6 characters can be guessed, expected 16 at least"):
        Keys(None)


# --- rates


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Iterator[Clock]:
    yield Clock()


def test_requests_beyond_the_burst_come_at_the_rate(clock: Clock) -> None:
    rates = Rates(30, 3, (), clock)
    for _ in range(3):
        rates.check(asked())
    with pytest.raises(Problem, match="more than 30 requests a minute; send the next one in 2 s") as refused:
        rates.check(asked())
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "2"})
    rates.check(asked("203.0.113.10"))
    rates.check(asked(path="/healthz"))
    clock.seconds = 2.0
    rates.check(asked())
    with pytest.raises(Problem, match="more than 30"):
        rates.check(asked())


def test_an_answer_says_when_to_come_again() -> None:
    client = serve(requests_per_minute=6.0, burst=1)
    assert client.get("/models").status_code == 200
    answer = client.get("/models")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")


def test_each_key_has_a_rate_of_its_own(clock: Clock) -> None:
    rates = Rates(1, 1, (), clock)
    for key in (b"first", b"second"):
        request = asked()
        request.scope["captioning.key"] = key
        rates.check(request)
        with pytest.raises(Problem, match="more than 1 requests a minute"):
            rates.check(request)


def test_one_client_has_all_addresses_of_its_ipv6_network(clock: Clock) -> None:
    rates = Rates(1, 1, (), clock)
    rates.check(asked("2001:db8:1:2::1"))
    with pytest.raises(Problem, match="more than 1"):
        rates.check(asked("2001:db8:1:2:ffff::9"))
    rates.check(asked("2001:db8:1:3::1"))


def test_clients_whose_ipv4_addresses_a_proxy_writes_as_ipv6_are_told_apart(clock: Clock) -> None:
    stated = [asked("10.0.0.1", x_forwarded_for=f"::ffff:203.0.113.{last}") for last in (1, 2)]
    assert [client_address(own, ["10.0.0.0/8"]) for own in stated] == ["203.0.113.1", "203.0.113.2"]


def test_clients_are_forgotten_before_they_fill_the_memory(clock: Clock) -> None:
    rates = Rates(1, 1, (), clock)
    request = asked()
    for number in range(MAX_CLIENTS + 100):
        request.scope["captioning.key"] = number + 1
        rates.check(request)
    assert len(rates._buckets) == MAX_CLIENTS


def test_what_a_client_writes_into_forwarded_for_is_not_believed() -> None:
    forged = asked("203.0.113.9", x_forwarded_for="1.2.3.4")
    assert client_address(forged, ()) == "203.0.113.9"
    assert client_address(forged, ["10.0.0.0/8"]) == "203.0.113.9"
    behind = asked("10.0.0.7", x_forwarded_for="1.2.3.4, 198.51.100.5, 10.0.0.8")
    assert client_address(behind, ["10.0.0.0/8"]) == "198.51.100.5"
    assert client_address(asked("10.0.0.7", x_forwarded_for="nonsense"), ["10.0.0.0/8"]) == "10.0.0.7"
