"""The search page and its server: who is let in, what is answered, how it looks in a browser."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from lookup_cases import NASTY, Case, build, nasty_texts
from running_server import serving

from era_cache.report.page_files import packaged
from era_cache.serve.http.app import App
from era_cache.serve.http.server import Server
from era_cache.serve.page import search_page

TOKEN = "a-token-for-tests-only"
SHOWN = ["small", "era-dual"]
NOTHING = {
    "error": {
        "message": "There is nothing here.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
}


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    return build(tmp_path_factory.mktemp("web"))


def _serving(lookup, **options) -> Iterator[Server]:
    with serving(App({}, lookup, SHOWN, seed=5), **options) as running:
        yield running


@pytest.fixture(scope="module")
def lookup(case):
    return case.lookup(typed=True, texts=True, names=[*SHOWN, "aligned", "era", "small+"])


@pytest.fixture(scope="module")
def server(lookup):
    yield from _serving(lookup)


@pytest.fixture(scope="module")
def guarded(lookup):
    yield from _serving(lookup, token=TOKEN)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    case = build(tmp_path_factory.mktemp("nasty"), nasty_texts())
    yield from _serving(case.lookup(texts=True, names=SHOWN))


def _ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(
            method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def _raw(server, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # it did not read all of a long one
            while part := sock.recv(65536):
                answer += part
        return answer


# Who is let in


def test_on_loopback_no_token_is_needed(server) -> None:
    assert server.url == f"http://127.0.0.1:{server.port}/"
    status, headers, body = _ask(server, "/")
    assert (status, body) == (200, search_page().content)
    assert "Set-Cookie" not in headers
    assert "Set-Cookie" not in _ask(server, "/?token=whatever")[1]


@pytest.mark.parametrize("path", ["/", "/v1/about", "/v1/search?id=q001", "/v1/random", "/x"])
def test_with_a_token_nothing_is_told_without_it(guarded, path) -> None:
    for given, cookie in (("", ""), ("wrong", ""), (TOKEN[:-1], ""), ("", f"x={TOKEN}")):
        joined = f"{path}{'&' if '?' in path else '?'}token={given}" if given else path
        status, headers, body = _ask(guarded, joined, Cookie=cookie)
        assert status == (401 if path.startswith("/v1/") else 403)
        assert "Set-Cookie" not in headers
        assert json.loads(body)["error"]["message"].startswith("Not without the token. Open the")


def test_the_token_is_shown_once_and_the_cookie_then_does(guarded) -> None:
    status, headers, body = _ask(guarded, f"/?token={TOKEN}")
    assert (status, body) == (200, search_page().content)
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert set(attributes) == {"Path=/", "HttpOnly", "SameSite=Strict"}
    status, headers, body = _ask(guarded, "/v1/search?id=q001&k=3", Cookie=f"a=b; {cookie}")
    assert status == 200
    assert json.loads(body)["query"]["id"] == "q001"
    assert "Set-Cookie" not in headers
    assert _ask(guarded, "/", Cookie=cookie[:-1])[0] == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost:{port}0"]
)
def test_a_request_under_another_name_is_refused(server, guarded, host) -> None:
    for running in (server, guarded):
        name = host.format(port=running.port)
        status, _, body = _ask(running, f"/?token={TOKEN}", Host=name)
        assert status == 403
        assert b"another name" in body


def test_no_name_and_two_names_are_refused(server) -> None:
    assert b" 403 " in _raw(server, b"GET / HTTP/1.0\r\n\r\n").split(b"\r\n")[0]
    own = f"Host: 127.0.0.1:{server.port}\r\n".encode()
    close = b"Connection: close\r\n\r\n"
    assert b" 200 " in _raw(server, b"GET / HTTP/1.1\r\n" + own + close).split(b"\r\n")[0]
    twice = _raw(server, b"GET / HTTP/1.1\r\n" + own + own + close)
    assert b" 403 " in twice.split(b"\r\n")[0]


def test_pages_of_other_sites_cannot_ask(server) -> None:
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        assert _ask(server, "/v1/search?id=q001", Sec_Fetch_Site=site)[0] == status


# What is answered


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_only_get_is_answered(server, method) -> None:
    status, headers, body = _ask(server, "/v1/search?id=q001", method, Content_Length="0")
    assert (status, set(headers["Allow"].split(", "))) == (405, {"GET", "HEAD"})
    assert json.loads(body)["error"]["message"] == "Not by this method."


def test_what_is_no_request_is_refused_and_the_server_lives_on(server) -> None:
    for data, status in (
        (b"NONSENSE / HTTP/1.0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n\r\n", b"403"),  # it names no host
        (b"GET\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\nConnection: close\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 70_000, b"400"),
        (b"GET / HTTP/1.0\r\n" + b"A: b\r\n" * 70_000, b"400"),
    ):
        first = _raw(server, data).split(b"\r\n")[0]
        assert first.split()[1:2] == [status] or (len(data) > 60_000 and not first)
    assert _ask(server, "/")[0] == 200


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/../../etc/passwd", "/static/", "/api", "/v1/", "/favicon.ico"]
)
def test_no_file_is_served(server, path) -> None:
    status, _, body = _ask(server, path)
    assert (status, json.loads(body)) == (404, NOTHING)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "Ask for a query or an id"),
        ("query=w1&depth=3", "No parameter 'depth'"),
        ("query=" + "a" * 4001, "4,000 characters at most"),
        ("query=w1&instruction=" + "a" * 4001, "4,000 characters at most"),
        ("query=w1&instruction=do", "Neither prompt"),
        ("id=nope", "no query 'nope'"),
        ("id=q001&k=0", "from 1 to 100"),
        ("id=q001&k=101", "from 1 to 100"),
        ("id=q001&k=1e1", "from 1 to 100"),
        ("id=q001&candidates=none", "'none' was asked for"),
        ("query=%ff", "address cannot be read"),
        ("&".join(f"a{n}=1" for n in range(30)), "address cannot be read"),
    ],
)
def test_a_wrong_question_is_told_so(server, query, words) -> None:
    status, headers, body = _ask(server, f"/v1/search?{query}")
    assert status == 400
    assert headers["Content-Type"] == "application/json"
    assert words in json.loads(body)["error"]["message"]


def test_the_answer_is_that_of_the_search(server, lookup) -> None:
    body = json.loads(_ask(server, "/v1/search?id=q004&k=3&candidates=era,small")[2])
    direct = lookup.find_id("q004", names=["era", "small"], depth=3)
    assert [c["name"] for c in body["candidates"]] == ["era", "small"]
    for shown, column in zip(body["candidates"], direct.columns, strict=True):
        assert [h["document"] for h in shown["hits"]] == [h.document for h in column.hits]
        assert [h["score"] for h in shown["hits"]] == [h.score for h in column.hits]
    typed = json.loads(_ask(server, "/v1/search?query=w1+w2+%C3%A9&k=2")[2])
    assert typed["query"]["text"] == "w1 w2 é"
    assert [c["name"] for c in typed["candidates"]] == SHOWN


def test_every_answer_carries_the_headers_that_protect(server, guarded) -> None:
    for running, path in (
        (server, "/"),
        (server, "/v1/about"),
        (server, "/v1/search?id=nope"),
        (server, "/nothing"),
        (guarded, "/"),
    ):
        headers = _ask(running, path)[1]
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Server" not in headers


def test_many_ask_at_once_and_each_gets_its_own_answer(server) -> None:
    def ask(number):
        body = _ask(server, f"/v1/search?id=q{number:03d}&k=1")[2]
        return json.loads(body)["query"]["id"]

    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(ask, range(30))) == [f"q{number:03d}" for number in range(30)]


def test_searches_take_turns(case) -> None:
    class Slow:
        """An encoder that notices a second caller."""

        def __init__(self, encoder):
            self.spec, self._encoder, self.inside, self.most = encoder.spec, encoder, 0, 0

        def encode(self, texts, role):
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.02)
            yield from self._encoder.encode(texts, role)
            self.inside -= 1

    lookup = case.lookup(typed=True, names=SHOWN)
    slow = lookup.models["large"] = Slow(lookup.models["large"])
    for running in _serving(lookup):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: _ask(running, f"/v1/search?query=w{n}+new"), range(8)))  # noqa: B023
    assert slow.most == 1


def test_hundreds_of_silent_clients_keep_nobody_out(server) -> None:
    address = ("127.0.0.1", server.port)
    idle = [socket.create_connection(address, timeout=20) for _ in range(300)]
    try:
        for sock in idle[::2]:
            sock.sendall(b"GET / HT")  # and no more
        with ThreadPoolExecutor(50) as pool:
            found = list(pool.map(lambda _: _ask(server, "/v1/search?id=q001")[0], range(200)))
        assert set(found) == {200}
    finally:
        for sock in idle:
            sock.close()


def test_a_request_that_does_not_come_is_hung_up_on(case, monkeypatch) -> None:
    monkeypatch.setattr("era_cache.serve.http.server.HEAD_SECONDS", 0.5)
    for running in _serving(case.lookup(names=SHOWN)):
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as sock:
            begun = time.monotonic()
            with contextlib.suppress(ConnectionError):
                while time.monotonic() - begun < 10:  # a byte, every now and then
                    sock.sendall(b"G")
                    time.sleep(0.1)
            assert time.monotonic() - begun < 5


def test_a_fault_of_ours_is_told_and_logged_and_the_server_lives_on(case, caplog) -> None:
    lookup = case.lookup(names=SHOWN)
    for running in _serving(lookup):
        lookup.find_id = lambda *_args, **_names: 1 / 0
        status, _, body = _ask(running, "/v1/search?id=q001")
        assert (status, json.loads(body)["error"]["message"]) == (
            500,
            "The server failed on this; its log says why.",
        )
        assert _ask(running, "/")[0] == 200
    end = time.monotonic() + 20  # it is logged after it was told
    while "ZeroDivisionError" not in caplog.text and time.monotonic() < end:
        time.sleep(0.05)
    assert "ZeroDivisionError" in caplog.text


def test_the_page_has_the_colours_of_the_reports() -> None:
    source = search_page().content.decode()
    colours = set(re.findall(r"--\w+:#\w+", source))
    assert len(colours) > 15
    assert colours <= set(re.findall(r"--\w+:#\w+", packaged("era_cache.report", "report.css")))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", source)
    assert not re.search(r"https?:|//\w+\.", source)


# In a browser

DONE = "#status.wrong, #results:not([hidden]):not([aria-busy])"


def _open(watch, server, path="", **options):
    options.setdefault("viewport", {"width": 1280, "height": 900})
    seen = watch(**options)
    seen.page.goto(server.url + path)
    if path:
        seen.page.locator(DONE).first.wait_for()
    else:
        seen.page.locator("#candidates input").first.wait_for()
    return seen


def _quiet(seen, server) -> None:
    assert seen.errors == []
    own = f"http://127.0.0.1:{server.port}/"
    assert [url for url in seen.requests if not url.startswith((own, "data:,"))] == []


def _search(page, text) -> None:
    page.fill("#query", text)
    page.press("#query", "Enter")  # marks what is shown as outdated before it returns
    page.locator("#results:not([hidden]):not([aria-busy])").wait_for()


def _boxes(page, selector):
    return [element.bounding_box() for element in page.locator(selector).all()]


def test_a_typed_query_shows_two_columns_side_by_side(watch, server, lookup) -> None:
    seen = _open(watch, server)
    page = seen.page
    assert page.evaluate("document.activeElement.id") == "query"
    assert page.inner_text("h1") == "Search planted"
    _search(page, "w1 w2 never stored")
    left, right = _boxes(page, ".column")
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    answer = lookup.find("w1 w2 never stored", names=SHOWN)
    for number, column in enumerate(answer.columns):
        section = page.locator(".column").nth(number)
        assert section.locator("h2").inner_text() == column.name
        assert section.locator("li .id").all_inner_texts() == [h.document for h in column.hits]
        scores = [text.split()[-1] for text in section.locator(".score").all_inner_texts()]
        assert scores == [f"{hit.score:.3f}" for hit in column.hits]
        assert section.locator("li .text").first.inner_text() == column.hits[0].text
    assert page.locator(".mark").count() == 0
    assert "Encoded in" in page.inner_text("#foot")
    assert page.inner_text("#status") == "10 documents from each candidate."
    _quiet(seen, server)


def test_relevant_documents_are_marked_and_movements_shown(watch, server, lookup) -> None:
    seen = _open(watch, server, "?id=q004&k=5")
    page = seen.page
    answer = lookup.find_id("q004", names=SHOWN, depth=5)
    for number, column in enumerate(answer.columns):
        section = page.locator(".column").nth(number)
        relevant = [h for h in column.hits if h.grade is not None and h.grade >= 1]
        assert section.locator("li.relevant .id").all_inner_texts() == [
            h.document for h in relevant
        ]
        marks = section.locator("li.relevant .mark")
        for hit, mark in zip(relevant, marks.all(), strict=True):
            assert mark.is_visible()
            assert mark.inner_text().split() == ["★", "relevant,", "grade", str(hit.grade)]
        assert section.locator(".value").inner_text() == f"nDCG@10 {column.value:.3f}"
    assert page.locator(".column").nth(0).locator(".moved").count() == 0
    before = {hit.document: hit.rank for hit in answer.columns[0].hits}
    moved = page.locator(".column").nth(1).locator("li")
    for hit, item in zip(answer.columns[1].hits, moved.all(), strict=True):
        change = before.get(hit.document, 99) - hit.rank
        shown = " ".join(item.locator(".moved").all_inner_texts()).split()
        if hit.document not in before:
            assert shown == ["new"]
        elif change:
            words = ["▲", "up"] if change > 0 else ["▼", "down"]
            assert [w for w in shown if w not in words] == [str(abs(change))]
        else:
            assert shown == []
    assert "test" in page.inner_text("#asked") or "q004" in page.inner_text("#asked")
    assert page.input_value("#query") == lookup.texts.queries[4]
    rows = page.locator("#elsewhere tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == [entry.document for entry in answer.elsewhere]
    assert rows
    _quiet(seen, server)


def test_the_address_carries_the_query_so_that_reload_and_back_work(watch, server) -> None:
    seen = _open(watch, server)
    page = seen.page
    _search(page, "w1 & w2?")
    assert page.url.endswith("/?query=w1+%26+w2%3F")
    first = page.locator("li .id").all_inner_texts()
    page.reload()
    page.locator(DONE).first.wait_for()
    assert page.input_value("#query") == "w1 & w2?"
    assert page.locator("li .id").all_inner_texts() == first
    _search(page, "w300 w301")
    page.locator('#candidates input[value="era"]').check()
    page.locator(".column").nth(2).wait_for()
    assert page.url.endswith("query=w300+w301&candidates=small%2Cera-dual%2Cera")
    page.go_back()
    page.locator(".column").nth(2).wait_for(state="detached")
    assert not page.locator('#candidates input[value="era"]').is_checked()
    page.go_back()
    page.locator(DONE).first.wait_for()
    assert page.input_value("#query") == "w1 & w2?"
    page.wait_for_timeout(100)
    assert page.locator("li .id").all_inner_texts() == first
    page.go_back()
    page.locator("#results").wait_for(state="hidden")
    assert page.input_value("#query") == ""
    _quiet(seen, server)


def test_the_random_button_finds_judged_queries_and_the_keyboard_suffices(watch, server) -> None:
    seen = _open(watch, server)
    page = seen.page
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "random"
    page.keyboard.press("Enter")
    page.locator(DONE).first.wait_for()
    query_id = page.input_value("#id")
    assert page.url.endswith(f"?id={query_id}")
    assert f"Query {query_id} (test query, 2 relevant)" in page.inner_text("#asked")
    assert page.locator("#status").get_attribute("aria-live") == "polite"
    assert page.inner_text("#status").startswith("First relevant document: small at ")
    # Typing goes on from there: the id no longer counts.
    _search(page, "w5 w6")
    assert page.url.endswith("?query=w5+w6")
    assert page.input_value("#id") == ""
    page.fill("#id", "q003")
    page.press("#id", "Enter")
    page.locator("#asked .id").wait_for()
    assert page.inner_text("#asked .id") == "q003"
    page.select_option("#k", "5")
    page.locator(".column").first.locator("li").nth(5).wait_for(state="detached")
    assert page.url.endswith("?id=q003&k=5")
    _quiet(seen, server)


def test_errors_of_ours_are_shown_as_text(watch, server) -> None:
    seen = _open(watch, server, "?id=%3Cb%3Ex")
    page = seen.page
    assert "no query '<b>x' among its 60" in page.inner_text("#status.wrong")
    assert page.locator("#results").is_hidden()
    _search(page, "w1 w2")
    assert page.locator("#status.wrong").count() == 0
    page.fill("#query", "")
    page.press("#query", "Enter")
    page.locator("#results").wait_for(state="hidden")
    assert page.inner_text("#status") == "Type a query first."
    # The browser itself notes the refused request, and nothing else.
    assert len(seen.errors) == 1
    assert "400" in seen.errors[0]


def test_a_server_that_has_ended_is_told(watch, lookup) -> None:
    for running in _serving(lookup):
        seen = _open(watch, running)
    page = seen.page
    page.fill("#query", "w1")
    page.press("#query", "Enter")
    page.locator("#status.wrong").wait_for()
    assert page.inner_text("#status") == "The server does not answer. Is it still running?"


def test_nasty_ids_and_texts_are_shown_literally_and_nothing_of_them_runs(watch, nasty) -> None:
    shown: dict[str, list[str]] = {".id": [], ".text": []}
    for query_id in ("q004", "q008"):  # together they find all of them
        seen = _open(watch, nasty, f"?id={query_id}&k=100")
        page = seen.page
        for kind, found in shown.items():
            found += page.locator(f"#columns li {kind}").evaluate_all(
                "elements => elements.map(e => e.textContent)"
            )
        _check_nothing_ran(seen, nasty)
    for name in NASTY.values():
        assert name in shown[".id"]
        assert any(text.startswith(name[:900]) for text in shown[".text"])


def _check_nothing_ran(seen, nasty) -> None:
    page = seen.page
    assert page.locator("#columns script, #columns img").count() == 0
    for whole in (False, True):
        page.set_checked("#whole", whole)
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    isolated = page.locator("bdi").evaluate_all(
        "elements => elements.every(e => getComputedStyle(e).unicodeBidi === 'isolate')"
    )
    assert isolated
    # Had anything run, it would have changed the title or asked for something.
    assert page.title().startswith("w")
    _quiet(seen, nasty)
    assert page.evaluate("fetch('http://127.0.0.1:9/').catch(() => 'refused')") == "refused"


@pytest.mark.parametrize("path", ["", "?id=q004&k=5"])
def test_on_a_phone_columns_stack_and_nothing_scrolls_sideways(watch, nasty, path) -> None:
    seen = _open(watch, nasty, path, viewport={"width": 390, "height": 844})
    page = seen.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    if path:
        # What ships comes first, whatever it is compared with.
        assert page.locator(".column.chosen").count() == 1
        first, second = sorted(_boxes(page, ".column"), key=lambda box: box["y"])
        assert _boxes(page, ".column.chosen") == [first]
        assert first["y"] + first["height"] <= second["y"]
        assert first["x"] == second["x"]
    for box in _boxes(page, "input:visible, button:visible, select:visible"):
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    _quiet(seen, nasty)


def test_in_the_dark_it_is_dark_and_readable(watch, server) -> None:
    def contrast(one, two):
        def light(colour):
            parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
            linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
            return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

        low, high = sorted([light(one), light(two)])
        return (high + 0.05) / (low + 0.05)

    backgrounds = {}
    for scheme in ("light", "dark"):
        seen = _open(watch, server, "?id=q004", color_scheme=scheme)

        def style(selector, name, page=seen.page):
            element = page.locator(selector).first
            return element.evaluate(f"e => getComputedStyle(e).{name}")

        backgrounds[scheme] = page_colour = style("body", "backgroundColor")
        picked = style("li.relevant", "backgroundColor")
        assert picked != page_colour
        for selector, behind in (
            ("body", page_colour),
            (".score", page_colour),
            (".up, .down", page_colour),
            ("li.relevant .text", picked),
            ("li.relevant .score", picked),
            ("li.relevant .mark", picked),
        ):
            assert contrast(style(selector, "color"), behind) >= 4.5, (scheme, selector)
        button = style("button.main", "color"), style("button.main", "backgroundColor")
        assert contrast(*button) >= 4.5
        _quiet(seen, server)
    assert contrast(*backgrounds.values()) > 10


def test_the_token_leaves_the_address_and_the_cookie_stays_out_of_scripts(watch, guarded) -> None:
    assert guarded.url.endswith(f"/?token={TOKEN}")
    seen = watch()
    page = seen.page
    page.goto(guarded.url)
    page.locator("#candidates input").first.wait_for()
    assert TOKEN not in page.url
    _search(page, "w1 w2")
    assert page.evaluate("document.cookie") == ""
    page.reload()
    page.locator(DONE).first.wait_for()
    _quiet(seen, guarded)
    other = watch()
    assert other.page.goto(guarded.url.split("?")[0]).status == 403


def test_without_models_the_page_still_searches_stored_queries(watch, case) -> None:
    for running in _serving(case.lookup(names=SHOWN)):
        seen = _open(watch, running)
        page = seen.page
        assert "only stored queries" in page.get_attribute("#query", "placeholder")
        assert page.locator("#wholes").is_hidden()
        assert page.locator("#instructed").is_hidden()
        page.click("#random")
        page.locator(DONE).first.wait_for()
        assert "Stored vectors" in page.inner_text("#foot")
        _search(page, case.texts.query_texts[3])
        assert page.inner_text("#asked .id") == "q003"
        _quiet(seen, running)
        page.fill("#query", "something new")
        page.press("#query", "Enter")
        page.locator("#status.wrong").wait_for()
        assert "--query-model (hash-24) and --doc-model" in page.inner_text("#status")


def test_the_field_for_an_instruction_is_there_where_a_prompt_has_a_place(
    watch, case, monkeypatch
) -> None:
    lookup = case.lookup(names=SHOWN)
    monkeypatch.setattr(type(lookup.source), "takes_instruction", True)
    asked = []
    lookup.find = lambda text, instruction="", **names: (
        asked.append((text, instruction)) or lookup.find_id("q001", **names)
    )
    for running in _serving(lookup):
        seen = _open(watch, running)
        seen.page.fill("#instruction", "in short")
        _search(seen.page, "w1")
        assert seen.page.url.endswith("?query=w1&instruction=in+short")
        _quiet(seen, running)
    assert asked == [("w1", "in short")]


def test_an_instruction_that_no_prompt_takes_does_not_stick_to_the_next_query(watch, case) -> None:
    lookup = case.lookup(typed=True, texts=True, names=SHOWN)
    lookup.texts = lookup.texts._replace(instructions=["in short"] * 60)
    for running in _serving(lookup):
        seen = _open(watch, running, "?id=q003")
        assert seen.page.inner_text("#instructions") == "Instruction: in short"
        _search(seen.page, "w1 w2")
        assert seen.page.url.endswith("?query=w1+w2")
        assert seen.page.locator("#status.wrong").count() == 0
        _quiet(seen, running)
