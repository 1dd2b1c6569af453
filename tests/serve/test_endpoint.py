"""The endpoint, as its clients see it: right vectors, whoever asks, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from command_case import done, run
from running_server import serving

import era_cache
from era_cache.cli import embed, fit, serve
from era_cache.serve.http.app import App
from era_cache.serve.http.batches import Batches, BusyError
from era_cache.serve.http.served import Opening, Served
from era_cache.store.store import Store

TEXTS = ["how do bees make honey?", "fast trains", "Züge", "long words " * 60, "x"]
CLOSE = 1e-5
ROOT = Path(__file__).parents[2]


def app_of(folder: Path, **opening: object) -> App:
    """An application that serves one adapter as ``toy``."""
    pool: dict = {}
    served = {"toy": Served("toy", folder, Opening(device="cpu", **opening), pool)}
    return App(served, None, [], pool=pool)


@pytest.fixture(scope="module")
def adapter(built_real) -> Path:
    return built_real / "adapters" / "toy"


@pytest.fixture(scope="module")
def server(adapter) -> Iterator[object]:
    with serving(app_of(adapter)) as running:
        yield running


@pytest.fixture(scope="module")
def expected(adapter) -> np.ndarray:
    return era_cache.QueryEncoder(adapter, device="cpu").encode(TEXTS)


def post(server, body: object, path: str = "/v1/embeddings", **headers: str):
    """Status and JSON of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request("POST", path, data, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def vectors_of(answer: dict) -> np.ndarray:
    return np.array([one["embedding"] for one in answer["data"]], dtype=np.float32)


def test_vectors_are_those_of_the_query_encoder(server, expected) -> None:
    status, answer = post(server, {"model": "toy", "input": TEXTS})
    assert (status, answer["object"], answer["model"]) == (200, "list", "toy")
    assert [one["index"] for one in answer["data"]] == list(range(len(TEXTS)))
    assert np.abs(vectors_of(answer) - expected).max() < CLOSE
    status, answer = post(server, {"model": "toy", "input": TEXTS, "encoding_format": "base64"})
    rows = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer["data"]]
    assert np.abs(np.array(rows) - expected).max() < CLOSE
    for row, text in enumerate(TEXTS):
        status, answer = post(server, {"model": "toy", "input": text, "dimensions": 256})
        assert np.abs(vectors_of(answer)[0] - expected[row]).max() < CLOSE
    status, answer = post(server, {"model": "toy", "input": "fast trains"})
    # [CLS] Answer: fast trains [SEP]
    assert answer["usage"] == {"prompt_tokens": 6, "total_tokens": 6}


def test_documents_are_those_of_the_index(server, built_real) -> None:
    store = Store.open(built_real / "stores" / "toy")
    collection = store.collection("toy")
    (side,) = [e for e in store.encoders() if e.spec.role.value == "document" and e.spec.dim == 256]
    read = map(json.loads, (ROOT / "data/toy/corpus.jsonl").read_text("utf-8").splitlines())
    texts = {one["_id"]: f"{one.get('title', '')} {one['text']}".strip() for one in read}
    asked = [texts[i] for i in collection.doc_ids]
    status, answer = post(server, {"model": "toy/document", "input": asked})
    assert status == 200
    stored = side.vectors(collection.doc_keys)  # float16
    assert np.abs(vectors_of(answer) - stored).max() < 5e-4


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        (b"[" * 100_000, 400, "Expected `object`"),
        ([], 400, "Expected `object`"),
        ({"input": "x"}, 400, "missing required field `model`"),
        ({"model": "toy"}, 400, "missing required field `input`"),
        ({"model": "toy", "input": ""}, 400, "text 0 is empty"),
        ({"model": "toy", "input": []}, 400, "expected a text"),
        ({"model": "toy", "input": {}}, 400, "expected a text"),
        ({"model": "toy", "input": ["a", None]}, 400, "text 1 is empty or no text"),
        ({"model": "toy", "input": [1, 2, 3]}, 400, "tokens of another model's tokenizer"),
        ({"model": "toy", "input": [[1, 2]]}, 400, "check_embedding_ctx_length=False"),
        ({"model": "toy", "input": ["a"] * 2049}, 400, "at most 2,048"),
        ({"model": "toy", "input": "a" * 200_001}, 400, "more than 200,000 characters"),
        ({"model": "toy", "input": "\ud800"}, 400, ""),
        ({"model": "toy", "input": "x", "dimensions": 255}, 400, "has 256 dimensions"),
        ({"model": "toy", "input": "x", "encoding_format": "int8"}, 400, "encoding_format"),
        ({"model": "toy", "input": "x", "input_type": "query"}, 400, "input_type"),
        ({"model": "toy", "input": "x", "instruction": "do"}, 400, "place for an instruction"),
        ({"model": "other", "input": "x"}, 404, "there are toy, toy/document"),
        ({"model": "toy/", "input": "x"}, 404, "there are toy"),
        (b"x" * ((8 << 20) + 1), 413, "longer than 8 MiB"),
    ],
)
def test_what_cannot_be_answered_is_said(server, body, status, words) -> None:
    found, answer = post(server, body)
    assert found == status
    assert words in answer["error"]["message"]
    assert set(answer["error"]) == {"message", "type", "param", "code"}


def test_a_token_is_an_api_key(adapter) -> None:
    with serving(app_of(adapter), token="a-token-for-tests-only") as running:
        for key, status in ((None, 401), ("wrong", 401), ("a-token-for-tests-only", 200)):
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            assert post(running, {"model": "toy", "input": "x"}, **headers)[0] == status
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
        connection.request("GET", "/healthz", headers={"Host": "pod-7"})
        assert connection.getresponse().status == 200
        connection.close()


def test_other_names_are_refused_unless_they_are_given(adapter) -> None:
    with serving(app_of(adapter), names=["search.example.org"]) as running:
        body = {"model": "toy", "input": "x"}
        for host, status in (("evil.example", 403), ("search.example.org", 200)):
            assert post(running, body, Host=host)[0] == status
        assert post(running, body, **{"Sec-Fetch-Site": "cross-site"})[0] == 403


def test_clients_of_openai_need_another_address_only(server, expected) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server.base}v1", api_key="none") as client:
        assert [one.id for one in client.models.list()] == ["toy", "toy/document"]
        answer = client.embeddings.create(model="toy", input=TEXTS)  # base64, its default
        assert np.abs(np.array([d.embedding for d in answer.data]) - expected).max() < CLOSE
        plain = client.embeddings.create(model="toy", input=TEXTS, encoding_format="float")
        assert np.abs(np.array([d.embedding for d in plain.data]) - expected).max() < CLOSE
        with pytest.raises(openai.BadRequestError, match="256 dimensions"):
            client.embeddings.create(model="toy", input="x", dimensions=8)
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="ada", input="x")


def test_langchain_needs_texts_said(server, expected) -> None:
    langchain = pytest.importorskip("langchain_openai")
    given = {"base_url": f"{server.base}v1", "api_key": "none", "check_embedding_ctx_length": False}
    queries = langchain.OpenAIEmbeddings(model="toy", **given)
    assert np.abs(np.array(queries.embed_documents(TEXTS)) - expected).max() < CLOSE
    assert np.abs(np.array(queries.embed_query(TEXTS[0])) - expected[0]).max() < CLOSE


def test_llama_index_needs_another_address_only(server, expected) -> None:
    llama = pytest.importorskip("llama_index.embeddings.openai")
    given = {"api_base": f"{server.base}v1", "api_key": "none"}
    queries = llama.OpenAIEmbedding(model_name="toy", **given)
    assert np.abs(np.array(queries.get_text_embedding_batch(TEXTS)) - expected).max() < CLOSE
    assert np.abs(np.array(queries.get_query_embedding(TEXTS[0])) - expected[0]).max() < CLOSE


def test_many_at_once_get_their_own_vectors(server, expected) -> None:
    def ask(number: int) -> float:
        rows = [(number + i) % len(TEXTS) for i in range(1 + number % 3)]
        _, answer = post(server, {"model": "toy", "input": [TEXTS[row] for row in rows]})
        return float(np.abs(vectors_of(answer) - expected[rows]).max())

    with ThreadPoolExecutor(16) as pool:
        assert max(pool.map(ask, range(120))) < CLOSE


def test_a_hostile_client_harms_nobody_else(server, expected) -> None:
    held = []
    for number in range(200):
        sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        if number % 4 == 1:
            sock.sendall(head.encode())
        if number % 4 == 2:  # a body that does not come
            sock.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        if number % 4 == 3:  # asks and goes away
            body = json.dumps({"model": "toy", "input": ["gone"]})
            sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            sock.close()
        held.append(sock)
    try:
        status, answer = post(server, {"model": "toy", "input": TEXTS})
        assert status == 200
        assert np.abs(vectors_of(answer) - expected).max() < CLOSE
    finally:
        for sock in held:
            sock.close()


def test_a_body_that_does_not_come_is_given_up(adapter, monkeypatch) -> None:
    monkeypatch.setattr("era_cache.serve.http.guard.BODY_SECONDS", 0.3)
    with (
        serving(app_of(adapter)) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=20) as sock,
    ):
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n"
        sock.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        answer = b""
        while part := sock.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.fixture
def two(toy, models, tmp_path) -> tuple[Path, Path]:
    """Two adapters over fast encoders, for folders that are replaced."""
    pair = ["--query-model", models["small"], "--doc-model", models["small"]]
    prompts = ["--large-query-template", "Q {instruction}: {text}"]
    done(run(embed.main, toy, "--store", tmp_path / "store", *pair, *prompts))
    for name, candidate in (("a", "small"), ("b", "era-dual")):
        words = ["--out", tmp_path / name, "--set", "iterations=2", "--candidate", candidate]
        done(run(fit.main, tmp_path / "store", "toy", *words))
    return tmp_path / "a", tmp_path / "b"


def _exchange(source: Path, target: Path) -> None:
    """Put a copy of a folder where another is, as writers of adapters do."""
    new, old = target.with_name("new"), target.with_name("old")
    shutil.copytree(source, new)
    target.rename(old)
    new.rename(target)
    shutil.rmtree(old)


def test_a_replaced_folder_is_taken_without_a_wrong_or_failed_answer(two, tmp_path) -> None:
    live = Path(shutil.copytree(two[0], tmp_path / "live"))
    encoders = [era_cache.QueryEncoder(folder, device="cpu") for folder in two]
    known = [encoder.encode(TEXTS) for encoder in encoders]
    assert np.abs(known[0] - known[1]).max() > 0.01
    seen: list[int] = []

    def ask(number: int) -> None:
        row = number % len(TEXTS)
        status, answer = post(running, {"model": "toy", "input": TEXTS[row]})
        assert status == 200, answer
        near = [np.abs(vectors_of(answer)[0] - one[row]).max() < CLOSE for one in known]
        assert any(near)
        seen.append(near.index(True))

    with serving(app_of(live)) as running, ThreadPoolExecutor(8) as pool:
        for source in (two[1], two[0], two[1]):
            asked = [pool.submit(ask, number) for number in range(200)]
            _exchange(source, live)
            for one in asked:
                one.result()
            wanted = two.index(source)
            end = time.monotonic() + 30
            while time.monotonic() < end and seen[-1] != wanted:
                ask(0)
                time.sleep(0.05)
            assert seen[-1] == wanted


def test_a_folder_that_cannot_be_used_is_not_taken(two, tmp_path, caplog) -> None:
    live = Path(shutil.copytree(two[0], tmp_path / "live"))
    known = era_cache.QueryEncoder(two[0], device="cpu").encode(TEXTS)
    with serving(app_of(live)) as running:
        (live / "config.json").write_text('{"format": "era-adapter", "version": 1}')
        end = time.monotonic() + 20
        while "is not taken" not in caplog.text and time.monotonic() < end:
            time.sleep(0.05)
        assert "is not taken" in caplog.text
        status, answer = post(running, {"model": "toy", "input": TEXTS})
        assert status == 200
        assert np.abs(vectors_of(answer) - known).max() < CLOSE


def test_a_folder_replaced_while_it_is_read_is_read_again(two, tmp_path, monkeypatch) -> None:
    live = Path(shutil.copytree(two[0], tmp_path / "live"))
    one = Served("toy", live, Opening(device="cpu"), {})
    _exchange(two[1], live)
    share = era_cache.QueryEncoder.share

    def exchanging(encoder, pool):
        _exchange(two[0], live)
        return share(encoder, pool)

    monkeypatch.setattr(era_cache.QueryEncoder, "share", exchanging)
    assert one.changed()
    assert one.reload() is None
    monkeypatch.undo()
    assert one.changed()
    assert one.reload() is not None


def test_files_that_arrive_one_by_one_are_taken_in_the_end(two, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("era_cache.serve.http.served.RETRY_SECONDS", 0.5)
    live = Path(shutil.copytree(two[0], tmp_path / "live"))
    wanted = era_cache.QueryEncoder(two[1], device="cpu").encode(TEXTS)
    with serving(app_of(live)) as running:
        shutil.copy(two[1] / "config.json", live / "config.json")
        time.sleep(2.5)  # it was tried, and its weights are not those that it names
        assert post(running, {"model": "toy", "input": TEXTS})[0] == 200
        shutil.copy(two[1] / "adapter.safetensors", live / "adapter.safetensors")
        end = time.monotonic() + 20
        found = np.zeros_like(wanted)
        while time.monotonic() < end and np.abs(found - wanted).max() > CLOSE:
            found = vectors_of(post(running, {"model": "toy", "input": TEXTS})[1])
            time.sleep(0.1)
        assert np.abs(found - wanted).max() < CLOSE


def test_an_instruction_goes_into_the_prompt(two) -> None:
    encoder = era_cache.QueryEncoder(two[1], device="cpu")
    with serving(app_of(two[1])) as running:
        for said in ("", "animals"):
            asked = {"model": "toy", "input": TEXTS, "instruction": said}
            status, answer = post(running, asked)
            assert status == 200
            assert np.abs(vectors_of(answer) - encoder.encode(TEXTS, said)).max() < CLOSE


def test_encoders_are_shared_between_adapters(two) -> None:
    pool: dict = {}
    served = {
        name: Served(name, folder, Opening(device="cpu"), pool)
        for name, folder in zip("ab", two, strict=True)
    }
    assert len(pool) == 2  # large and small differ in their prompts
    first, second = (one.current.queries.encoder.models() for one in served.values())
    assert first["small"] is second["small"]
    with serving(App(served, None, [], pool=pool)) as running:
        for name, folder in zip("ab", two, strict=True):
            known = era_cache.QueryEncoder(folder, device="cpu").encode(TEXTS)
            _, answer = post(running, {"model": name, "input": TEXTS})
            assert np.abs(vectors_of(answer) - known).max() < CLOSE


class _Target:
    """Gives a text's length as its vector; fails on some."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, texts, instructions):
        del instructions
        self.batches.append(len(texts))
        if "bad" in texts:
            raise ValueError("bad")
        time.sleep(0.01)
        return np.array([[len(t)] for t in texts], dtype=np.float32)


def _with_batches(work) -> None:
    async def main() -> None:
        batches = Batches()
        task = asyncio.create_task(batches.run())
        try:
            await work(batches)
        finally:
            task.cancel()
            batches.close()

    with ThreadPoolExecutor(1) as pool:  # a browser's loop may run in this thread
        pool.submit(asyncio.run, main()).result()


def test_what_waits_is_encoded_together_and_one_failure_is_one_request_s() -> None:
    async def work(batches: Batches) -> None:
        target = _Target()
        texts = [["a"], ["bb", "ccc"], ["bad"], ["dddd"]]
        asked = [batches.encode(target, some, [""] * len(some)) for some in texts]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [one.ravel().tolist() for one in (found[0], found[1], found[3])] == [
            [1],
            [2, 3],
            [4],
        ]
        assert isinstance(found[2], ValueError)
        assert target.batches[0] == 5

    _with_batches(work)


def test_a_long_list_lets_others_in_between() -> None:
    async def work(batches: Batches) -> None:
        target = _Target()
        long = asyncio.create_task(batches.encode(target, ["x"] * 1000, [""] * 1000))
        await asyncio.sleep(0.02)
        await asyncio.wait_for(batches.encode(target, ["yy"], [""]), 1)
        assert not long.done()
        assert (await long).shape == (1000, 1)
        assert max(target.batches) <= 65

    _with_batches(work)


def test_more_than_may_wait_is_refused_with_a_time() -> None:
    async def work(batches: Batches) -> None:
        target = _Target()
        waiting = asyncio.create_task(batches.encode(target, ["x"] * 4000, [""] * 4000))
        await asyncio.sleep(0)
        with pytest.raises(BusyError) as caught:
            await batches.encode(target, ["x"] * 100, [""] * 100)
        assert 1 <= caught.value.seconds <= 60
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert batches.waiting == 0
        assert (await batches.encode(target, ["x"], [""])).tolist() == [[1]]

    _with_batches(work)


def test_busy_is_429_with_retry_after(adapter, monkeypatch) -> None:
    monkeypatch.setattr("era_cache.serve.http.batches.MOST_WAITING", 3)
    with serving(app_of(adapter)) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
        connection.request("POST", "/v1/embeddings", json.dumps({"model": "toy", "input": TEXTS}))
        answer = connection.getresponse()
        assert (answer.status, int(answer.headers["Retry-After"]) >= 1) == (429, True)
        answer.read()
        connection.close()
        assert post(running, {"model": "toy", "input": TEXTS[:3]})[0] == 200


def test_metrics_and_readiness(server) -> None:
    post(server, {"model": "toy", "input": TEXTS})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    read = {}
    for path in ("/metrics", "/readyz", "/healthz", "/openapi.json"):
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        read[path] = answer.read().decode()
    connection.close()
    assert 'era_texts_total{model="toy"}' in read["/metrics"]
    assert 'era_requests_total{path="/v1/embeddings",status="200"}' in read["/metrics"]
    assert "era_waiting_texts 0.0" in read["/metrics"]
    assert json.loads(read["/readyz"]) == {"ready": True}
    assert json.loads(read["/openapi.json"])["openapi"] == "3.1.0"


def _started(*words: object) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, ROOT / "bin" / "era-serve", *words, "--port", 0, "--device", "cpu"]
    running = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return running, running.stdout.readline()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_with_what_is_under_way(adapter, ending) -> None:
    running, line = _started(adapter)
    assert line.startswith("http://127.0.0.1:")
    assert line.endswith("/v1: models toy, toy/document\n")
    port = int(line.split(":")[2].split("/")[0])

    class Address:
        pass

    Address.port = port
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", port)):
            break
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(post, Address, {"model": "toy", "input": ["some words"] * 300})
        time.sleep(1.5)
        os.kill(running.pid, ending)
        assert asked.result()[0] == 200
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, "Traceback" in errors) == (0, False), errors


def test_wrong_uses_are_said(adapter, built_adapter, tmp_path) -> None:
    for words, code, said in (
        ([adapter, adapter], 1, "names two"),
        ([f"a/b={adapter}"], 1, "without a slash"),
        ([tmp_path], 1, "not an adapter folder"),
        ([built_adapter], 1, ""),
        ([adapter, "--host", "0.0.0.0"], 1, "Add --token auto"),
        ([adapter, "--name", "a/b"], 1, "expected a host name"),
        ([adapter, "--texts", tmp_path], 2, "--texts is of --store"),
        ([adapter, "--index", "pq"], 2, "--index is of --store"),
        ([], 2, "Missing argument"),
    ):
        result = run(serve.main, *words)
        assert (result.exit_code, said in result.output) == (code, True), result.output


@pytest.mark.filterwarnings("ignore")
def test_no_request_makes_it_fail(adapter, built_real, tmp_path) -> None:
    pytest.importorskip("schemathesis")
    store = built_real / "stores" / "toy"
    running, line = _started(f"toy={adapter}", "--store", store)
    try:
        base = line.split("v1:")[0]
        command = [
            Path(sys.executable).with_name("schemathesis"),
            "run",
            f"{base}openapi.json",
            "--url",
            base,
            "--checks",
            "not_a_server_error,status_code_conformance,response_schema_conformance",
            "--max-examples",
            "25",
            "--seed",
            "1",
            "--generation-database",
            "none",
        ]
        found = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
    finally:
        running.terminate()
        running.communicate(timeout=60)
