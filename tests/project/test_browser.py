"""The browser harness itself: what it must notice, it notices."""

import http.server
import threading

import pytest

PAGE = """<!DOCTYPE html><title>t</title><p>hello</p>
<script>console.error("complaint"); fetch("/missing"); throw new Error("thrown")</script>"""


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(PAGE.encode() if found else b"")

        def log_message(self, *_args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def test_errors_and_requests_of_a_page_are_seen(watch, server):
    seen = watch()
    seen.page.goto(server)
    seen.page.wait_for_load_state("networkidle")
    assert seen.page.inner_text("p") == "hello"
    assert any("complaint" in error for error in seen.errors)
    assert any("thrown" in error for error in seen.errors)
    assert f"{server}missing" in seen.requests


def test_a_quiet_page_is_quiet(watch, tmp_path):
    (tmp_path / "quiet.html").write_text("<!DOCTYPE html><title>t</title><p>quiet</p>")
    seen = watch(color_scheme="dark")
    seen.page.goto((tmp_path / "quiet.html").as_uri())
    assert seen.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert seen.errors == []
    assert seen.requests == [(tmp_path / "quiet.html").as_uri()]
