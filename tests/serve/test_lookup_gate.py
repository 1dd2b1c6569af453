"""Who may ask the server: addresses, names, tokens."""

from __future__ import annotations

import socket

import pytest

from era_cache.errors import InputError
from era_cache.serve.gate import Gate, bind_address, make_token

TOKEN = "abcdefghijklmnop"


def test_a_token_is_long_enough_and_fits_into_an_address() -> None:
    assert make_token(None) is None
    assert make_token(TOKEN) == TOKEN
    made = {make_token("auto") for _ in range(5)}
    assert len(made) == 5
    assert all(len(token) >= 32 and make_token(token) == token for token in made)


@pytest.mark.parametrize(
    "token", ["", "abcdefghijklmno", "abcdefghijklmno;", "a" * 15 + "é", "Auto"]
)
def test_a_weak_or_odd_token_is_refused(token) -> None:
    with pytest.raises(InputError, match="at least 16 letters"):
        make_token(token)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1"])
def test_loopback_needs_no_token(host) -> None:
    family, address = bind_address(host, has_token=False)
    assert family in (socket.AF_INET, socket.AF_INET6)
    assert address in ("127.0.0.1", "127.8.9.1", "::1")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "::ffff:127.0.0.1"])
def test_what_others_can_reach_needs_a_token(host) -> None:
    with pytest.raises(InputError, match="Add --token auto"):
        bind_address(host, has_token=False)
    assert bind_address(host, has_token=True)[1] == host


def test_an_unknown_host_is_an_error() -> None:
    for host in ("no.such.host.invalid", "x" * 300, "a b"):
        with pytest.raises(InputError, match="no such host"):
            bind_address(host, has_token=False)


@pytest.mark.parametrize(
    ("headers", "known"),
    [
        (["127.0.0.1:8750"], True),
        (["localhost:8750"], True),
        (["LOCALHOST:8750"], True),
        (["[::1]:8750"], True),
        (["127.0.0.1:8751"], False),
        (["127.0.0.1"], False),
        (["evil.example:8750"], False),
        (["192.0.2.7:8750"], False),
        (["localhost.evil.example:8750"], False),
        (["evil.example:8750@localhost:8750"], False),
        (["127.0.0.1:8750", "127.0.0.1:8750"], False),
        (["localhost:8750:8750"], False),
        (["localhost: 8750"], False),
        ([""], False),
        ([], False),
    ],
)
def test_only_requests_that_name_the_server_are_answered(headers, known) -> None:
    assert Gate("127.0.0.1", "127.0.0.1", 8750, None).knows_host(headers) == known


def test_port_80_may_go_unsaid() -> None:
    assert Gate("localhost", "127.0.0.1", 80, None).knows_host(["localhost"])


def test_where_all_addresses_are_listened_on_any_number_will_do_but_no_strange_name() -> None:
    gate = Gate("0.0.0.0", "0.0.0.0", 8750, TOKEN)
    named = [f"{name}:8750" for name in ("192.0.2.7", "[2001:db8::1]", "localhost")]
    assert all(gate.knows_host([name]) for name in [*named, f"{socket.gethostname()}:8750"])
    assert not gate.knows_host(["evil.example:8750"])
    assert not gate.knows_host(["192.0.2.7:8751"])


def test_another_host_is_known_by_its_own_name_only() -> None:
    gate = Gate("box.example", "192.0.2.7", 8750, TOKEN)
    assert gate.knows_host(["box.example:8750"])
    assert gate.knows_host(["192.0.2.7:8750"])
    assert not gate.knows_host(["localhost:8750"])


def test_a_token_is_shown_in_the_address_or_in_a_cookie() -> None:
    gate = Gate("127.0.0.1", "127.0.0.1", 8750, TOKEN)
    assert gate.admits([TOKEN], [])
    assert gate.admits([], [f"a=b; era-search-8750={TOKEN}"])
    assert gate.admits(["wrong"], [f"era-search-8750={TOKEN}"])
    for token, cookies in (
        (None, []),
        ("", []),
        (TOKEN[:-1], []),
        (TOKEN + "x", []),
        (TOKEN.upper(), []),
        ("é", []),
        (None, [f"era-search-8751={TOKEN}"]),
        (None, ["era-search-8750="]),
        (None, [f"other={TOKEN}"]),
    ):
        assert not gate.admits([] if token is None else [token], cookies)
    assert gate.cookie() == {
        "Set-Cookie": f"era-search-8750={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    }


def test_without_a_token_anyone_is_let_in_and_no_cookie_is_set() -> None:
    gate = Gate("127.0.0.1", "127.0.0.1", 8750, None)
    assert gate.admits([], [])
    assert gate.admits(["anything"], ["x=y"])
    assert gate.cookie() == {}
