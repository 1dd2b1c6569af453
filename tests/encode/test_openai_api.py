"""Encoders behind an address, against a real server on this machine that fails as servers do."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import threading
import time

import numpy as np
import pytest

from benchmarks.embedding_server import FAULTS, EmbeddingServer, vector_of
from era_cache.collection.records import Dropped, TextCollection
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.encode.embedding_answer import AnswerError, read_answer
from era_cache.encode.encoder import EncoderSettings, encoder_as_recorded, open_encoder
from era_cache.encode.openai_api import OpenAIEncoder
from era_cache.encode.service import Budget, ServiceSettings, retry_after
from era_cache.errors import EncoderError, InputError
from era_cache.store.store import Store
from era_cache.types import Role

TEXTS = [f"text number {n} says {n * n}" for n in range(300)]
KEY = "sk-secret-0123456789"


def text_collection(documents, queries, name="made") -> TextCollection:
    return TextCollection(
        name=name,
        domain="",
        ignore_identical_ids=False,
        doc_ids=[f"d{n}" for n in range(len(documents))],
        doc_texts=documents,
        query_ids=[f"q{n}" for n in range(len(queries))],
        query_texts=queries,
        instructions=[""] * len(queries),
        splits={},
        dropped=Dropped(),
    )


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "era_cache.encode.embedding_client.back_off", lambda failures: 0.01 * failures
    )


def opened(server: EmbeddingServer, model: str = "made", **changes) -> OpenAIEncoder:
    service = ServiceSettings(
        **{name: changes.pop(name) for name in list(changes) if name in vars(ServiceSettings())}
    )
    settings = EncoderSettings(service=service, **changes)
    encoder = open_encoder(f"openai:{model}@{server.address}", settings)
    assert isinstance(encoder, OpenAIEncoder)
    return encoder


def vectors_of(encoder, texts, role=Role.DOCUMENT) -> np.ndarray:
    found = {}
    for rows, batch in encoder.encode(texts, role):
        assert not found.keys() & set(rows)
        found.update(zip(rows, batch, strict=True))
    assert sorted(found) == list(range(len(texts)))
    return np.stack([found[row] for row in range(len(texts))])


def until(error, message, encoder, texts) -> list[int]:
    """Rows that come before an error."""
    got: list[int] = []

    def run() -> None:
        for rows, batch in encoder.encode(texts, Role.DOCUMENT):
            assert np.array_equal(batch, wanted([texts[row] for row in rows]))
            got.extend(rows)

    with pytest.raises(error, match=message):
        run()
    return got


def wanted(texts, dim=32, seed="") -> np.ndarray:
    return np.stack([vector_of(text, dim, seed) for text in texts])


def test_vectors_come_in_the_order_of_the_texts_each_asked_for_once() -> None:
    with EmbeddingServer(seconds=0.02) as server:
        encoder = opened(server)
        assert np.array_equal(vectors_of(encoder, TEXTS), wanted(TEXTS))
        assert all(server.asked[text] == 1 for text in TEXTS)
        assert server.most_open > 4
        assert {body["encoding_format"] for body in server.bodies} == {"float"}
        assert all("dimensions" not in body for body in server.bodies)
        assert server.keys == {f"Bearer {KEY}"}
        bill = encoder.bill()
        assert bill["tokens"] == sum(len(text.split()) for text in TEXTS) + 2 * 9


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_seen_and_asked_again(fault) -> None:
    with EmbeddingServer(kinds=(fault,)) as server:
        encoder = opened(server)
        vectors_of(encoder, TEXTS[:1])
        server.faults = 0.4
        assert np.array_equal(vectors_of(encoder, TEXTS), wanted(TEXTS))
        assert server.failed[fault] > 3


def test_a_server_whose_first_answers_are_wrong_does_not_teach_the_width() -> None:
    with EmbeddingServer(faults=1.0, kinds=("quarter width", "wrong dimension")) as server:
        server.random.seed(3)
        encoder = opened(server)

        def heal() -> None:
            while len(server.bodies) < 1:
                time.sleep(0.001)
            server.faults = 0.0

        threading.Thread(target=heal).start()
        assert vectors_of(encoder, TEXTS[:9]).shape == (9, 32)


def test_one_model_that_gives_another_vector_every_time_is_refused() -> None:
    class Drifting(EmbeddingServer):
        @property
        def seed(self):
            return str(len(self.bodies))

        @seed.setter
        def seed(self, value):
            pass

    with Drifting() as server, pytest.raises(EncoderError, match="6 different vectors"):
        vectors_of(opened(server), TEXTS)


def test_dimensions_are_asked_for_and_are_another_encoder() -> None:
    with EmbeddingServer() as server:
        encoder = opened(server, truncate_dim=8)
        assert vectors_of(encoder, TEXTS[:20]).shape == (20, 8)
        assert {body["dimensions"] for body in server.bodies} == {8}
        prints = {
            opened(server, **changes).spec.fingerprint(Role.QUERY)
            for changes in (
                {},
                {"truncate_dim": 8},
                {"revision": "2"},
                {"model": "other"},
                {"query_template": "q: {text}"},
            )
        }
        assert len(prints) == 5
        # How it is asked changes nothing.
        same = opened(server, price=2.0, in_flight=3, batch_tokens=77)
        assert same.spec.fingerprint(Role.QUERY) in prints


def test_texts_that_the_server_refuses_are_named_and_the_others_kept() -> None:
    texts = [*TEXTS[:40], "long " * 300, *TEXTS[40:60]]
    with EmbeddingServer(most_bytes=1000) as server:
        encoder = opened(server)
        found = vectors_of(encoder, texts)
        assert np.isnan(found[40]).all()
        assert np.array_equal(np.delete(found, 40, 0), wanted(TEXTS[:60]))
        assert encoder.reasons.keys() == {40}
        assert "maximum context length" in encoder.reasons[40]
        assert KEY not in encoder.reasons[40]


def test_batches_shrink_to_what_a_server_allows() -> None:
    with EmbeddingServer(most_texts=9) as server:
        encoder = opened(server, in_flight=2)
        assert np.array_equal(vectors_of(encoder, TEXTS), wanted(TEXTS))
        assert all(server.asked[text] == 1 for text in TEXTS)
        first = len(server.bodies)
        vectors_of(encoder, TEXTS)
        refused = [body for body in server.bodies[first:] if len(body["input"]) > 9]
        assert not refused


@pytest.mark.parametrize(("status", "message"), [("401", "refuses"), ("404", "refuses")])
def test_what_no_patience_mends_ends_at_once(status, message, monkeypatch) -> None:
    monkeypatch.setattr(
        "benchmarks.embedding_server._Handler._answer",
        lambda handler, *_: handler._refuse(int(status), "no such key"),
    )
    with EmbeddingServer() as server:
        with pytest.raises(EncoderError, match=message) as caught:
            vectors_of(opened(server), TEXTS)
        assert len(server.bodies) == 1
        assert KEY not in str(caught.value)
        assert "no such key" in str(caught.value)


def test_a_server_that_is_gone_ends_after_some_tries(monkeypatch) -> None:
    with EmbeddingServer() as server:
        encoder = opened(server)
        vectors_of(encoder, TEXTS[:3])
        server.faults, server.kinds = 1.0, ("500",)
        with pytest.raises(
            EncoderError, match="8 requests in a row failed, the last with: HTTP 500"
        ):
            vectors_of(encoder, TEXTS[:3])
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(EncoderError, match="no answer"):
        vectors_of(open_encoder("openai:made", EncoderSettings()), TEXTS[:3])


def test_a_server_that_breaks_on_the_way_is_no_reason_to_leave_texts_out() -> None:
    with EmbeddingServer() as server:
        encoder = opened(server)
        vectors_of(encoder, TEXTS[:3])
        server.most_bytes = 0  # refuses whatever comes, as a server without its model does
        with pytest.raises(EncoderError, match="the server refuses every text now: HTTP 400"):
            vectors_of(encoder, TEXTS[:20])
        assert encoder.reasons == {}


def test_too_many_requests_make_everybody_wait(monkeypatch) -> None:
    monkeypatch.setattr("era_cache.encode.embedding_client._PATIENCE", 0.5)
    with EmbeddingServer() as server:
        encoder = opened(server)
        vectors_of(encoder, TEXTS[:3])
        server.faults, server.kinds = 1.0, ("429",)
        begun = time.monotonic()
        with pytest.raises(EncoderError, match="HTTP 429"):
            vectors_of(encoder, TEXTS[:3])
        assert 0.4 < time.monotonic() - begun < 5


def test_requests_per_minute_are_kept() -> None:
    with EmbeddingServer() as server:
        encoder = opened(server, requests_per_minute=1200)
        begun = time.monotonic()
        vectors_of(encoder, TEXTS)
        assert time.monotonic() - begun > (len(server.bodies) - 1) * 0.05


def test_no_more_is_spent_than_allowed() -> None:
    texts = [f"{text} " + "word " * 20 for text in TEXTS]
    with EmbeddingServer() as server:
        each = len(texts[0].split())
        budget = Budget(each * 150 * 1e-6)  # at 1 for a token and a million
        encoder = opened(server, price=1.0, budget=budget, batch_tokens=400)
        got = until(EncoderError, r"--max-cost: .* is spent", encoder, texts)
        assert budget.spent <= budget.most
        assert encoder.bill()["cost"] == pytest.approx(budget.spent)
        assert 50 < len(got) < 150
        billed = sum(len(text.split()) * n for text, n in server.asked.items())
        assert budget.spent == pytest.approx(billed * 1e-6)


def on_its_way(server) -> set[str]:
    return set(server.asked) & set(TEXTS)


def interrupt_when(asked) -> None:
    """Ctrl-C for the main thread, once something was asked for."""

    def interrupt() -> None:
        while not asked():
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.main_thread().ident
    threading.Thread(target=interrupt).start()


@pytest.mark.parametrize("requests", [1, 2, 5, 9])
def test_ctrl_c_gives_out_what_was_on_its_way(requests) -> None:
    # However many requests were sent: also between sending one and knowing of it.
    with EmbeddingServer(seconds=0.3) as server:
        encoder = opened(server)
        vectors_of(encoder, TEXTS[:1])
        before = len(server.bodies)
        interrupt_when(lambda: len(server.bodies) >= before + requests)
        got = until(KeyboardInterrupt, None, encoder, TEXTS)
        assert got
        assert {TEXTS[row] for row in got} | {TEXTS[0]} == on_its_way(server)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_vectors_are_stored_loses_none_either() -> None:
    with EmbeddingServer(seconds=0.05) as server:
        encoder, got = opened(server, in_flight=4), []

        def store() -> None:
            for rows, _ in encoder.encode(TEXTS, Role.DOCUMENT):
                got.extend(rows)
                if len(got) == len(rows):
                    signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            store()
        assert len(got) < len(TEXTS)
        assert {TEXTS[row] for row in got} == on_its_way(server)


def test_a_second_ctrl_c_waits_for_nobody() -> None:
    with EmbeddingServer(seconds=0.05) as server:
        encoder = opened(server, in_flight=4)
        vectors_of(encoder, TEXTS[:1])
        server.seconds = 5.0
        asked = len(server.bodies)

        def twice() -> None:
            while len(server.bodies) == asked:
                time.sleep(0.001)
            for _ in range(2):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                time.sleep(0.3)

        begun = time.monotonic()
        threading.Thread(target=twice).start()
        assert until(KeyboardInterrupt, None, encoder, TEXTS) == []
        assert time.monotonic() - begun < 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_runs_where_an_event_loop_runs_as_in_notebooks() -> None:
    async def notebook(server) -> np.ndarray:
        return vectors_of(opened(server), TEXTS[:5])

    with EmbeddingServer() as server:
        assert np.array_equal(asyncio.run(notebook(server)), wanted(TEXTS[:5]))


def test_a_store_keeps_what_was_paid_for_and_asks_for_nothing_twice(tmp_path) -> None:
    texts = text_collection(TEXTS[:200], TEXTS[200:])
    store = Store.create(tmp_path / "store")
    config = EmbedConfig(align_documents=20)
    with EmbeddingServer(faults=0.2) as server:
        both = [opened(server, model) for model in ("big", "little")]
        server.asked.clear()
        _, reports = embed_collection(store, texts, large=both[0], small=both[1], config=config)
        assert sum(report.encoded for report in reports) == 200 + 2 * 100 + 20
        before = dict(server.asked)
        assert all(
            before[text] == (2 if n >= 200 else before[text]) for n, text in enumerate(TEXTS)
        )
        _, reports = embed_collection(store, texts, large=both[0], small=both[1], config=config)
        assert not any(report.encoded for report in reports)
        assert dict(server.asked) == before
        for encoder in store.encoders():
            keys = store.collection("made").keys_of(encoder.spec.role)
            rows = encoder.index().positions(keys) >= 0
            said = TEXTS[:200] if encoder.spec.role is Role.DOCUMENT else TEXTS[200:]
            found = encoder.vectors(keys[rows])
            right = wanted([text for text, there in zip(said, rows, strict=True) if there])
            assert np.abs(found - right).max() < 0.01


def test_another_model_under_the_same_name_is_noticed(tmp_path) -> None:
    store = Store.create(tmp_path / "store")
    config = EmbedConfig(align_documents=20)
    with EmbeddingServer() as server:

        def run(texts, **changes) -> None:
            encoder = opened(server, **changes)
            embed_collection(store, texts, large=encoder, small=encoder, config=config)

        run(text_collection(TEXTS[:100], TEXTS[200:]))
        server.seed = "retrained"
        more = text_collection(TEXTS[:150], TEXTS[200:], name="more")
        with pytest.raises(EncoderError, match="the server gives other vectors"):
            run(more)
        run(more, revision="2")
        server.seed = ""
        run(more)
        server.dim = 16
        with pytest.raises(EncoderError, match="16 dimensions, not 32"):
            run(text_collection(TEXTS[:160], TEXTS[200:], name="more"))


def test_a_recorded_encoder_opens_again_but_never_at_a_recorded_address(
    tmp_path, monkeypatch
) -> None:
    store = Store.create(tmp_path / "store")
    with EmbeddingServer() as server:
        encoder = opened(server, revision="7", truncate_dim=8)
        texts = text_collection(TEXTS[:30], TEXTS[200:])
        embed_collection(store, texts, large=encoder, small=encoder, config=EmbedConfig())
        for stored in store.encoders():
            assert server.address not in str(stored.spec)
            assert KEY not in (stored.folder / "encoder.json").read_text()
            monkeypatch.setenv("OPENAI_BASE_URL", server.address)
            again = encoder_as_recorded(stored.spec, "openai:made")
            assert again.spec.fingerprint(stored.spec.role) == stored.spec.fingerprint


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://name:pass@127.0.0.1/v1", "would be shown"),
        ("http://127.0.0.1/v1?key=1", "would be shown"),
        ("http://", "no address"),
        ("https://[::1", "no address"),
    ],
)
def test_addresses_that_cannot_be_used(address, message) -> None:
    with pytest.raises(EncoderError, match=message):
        open_encoder(f"openai:made@{address}", EncoderSettings())


def test_settings_that_a_server_cannot_keep(monkeypatch) -> None:
    with pytest.raises(InputError, match="max-seq-length"):
        open_encoder("openai:made", EncoderSettings(max_seq_length=8))
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(EncoderError, match="OPENAI_API_KEY"):
        vectors_of(open_encoder("openai:text-embedding-3-small", EncoderSettings()), ["a"])
    with pytest.raises(InputError, match="max-cost"):
        Budget(-1)


def test_the_key_stands_in_no_log(caplog) -> None:
    caplog.set_level(logging.DEBUG)
    with EmbeddingServer(faults=0.3) as server:
        vectors_of(opened(server), TEXTS)
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"data": [{"index": 0, "embedding": [1, 2]}]}', "1 vectors for 2 texts"),
        (b'{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}', "twice"),
        (b'{"data": [{"index": 0, "embedding": [1]}, {"index": 2, "embedding": [1]}]}', "missing"),
        (b'{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]}', "1, 2"),
        (
            b'{"data": [{"index": 0, "embedding": [1e39]}, {"index": 1, "embedding": [1]}]}',
            "finite",
        ),
        (b'{"data": [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}]}', "zeros"),
        (b'{"data": [{"index": 0, "embedding": "!"}, {"index": 1, "embedding": [1]}]}', "base64"),
        (b'{"data": [{"index": 0, "embedding": [null]}]}', "no answer"),
        (b"[" * 100_000, "no answer"),
        (b"", "no answer"),
    ],
)
def test_answers_that_cannot_be_believed(body, message) -> None:
    with pytest.raises(AnswerError, match=message):
        read_answer(body, 2, None)


def test_base64_that_nobody_asked_for_is_read() -> None:
    body = b'{"data": [{"index": 0, "embedding": "AACAPwAAAEA="}], "model": "m"}'
    answer = read_answer(body, 1, 2)
    assert answer.vectors.tolist() == [[1.0, 2.0]]
    assert (answer.model, answer.tokens) == ("m", None)


def test_retry_after_in_all_its_forms() -> None:
    assert retry_after({"retry-after": "2"}) == 2.0
    assert retry_after({"retry-after-ms": "250"}) == 0.25
    assert retry_after({"retry-after": "100000"}) == 600.0
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "nan"}) is None
    assert retry_after({}) is None
    assert not math.isnan(retry_after({"retry-after": "inf"}) or 0.0)


def test_a_model_that_was_exchanged_answers_no_query(tmp_path) -> None:
    from era_cache.encode.served_probe import check_server

    store = Store.create(tmp_path / "store")
    with EmbeddingServer() as server:
        encoder = opened(server)
        texts = text_collection(TEXTS[:30], TEXTS[200:])
        embed_collection(store, texts, large=encoder, small=encoder, config=EmbedConfig())
        (stored,) = [one for one in store.encoders() if one.spec.role is Role.QUERY]
        check_server(encoder, Role.QUERY, stored)
        server.seed = "retrained"
        with pytest.raises(EncoderError, match="the server gives other vectors of query texts"):
            check_server(opened(server), Role.QUERY, stored)
        server.seed = ""
        check_server(opened(server), Role.QUERY, stored)
