"""A real browser for tests: chromium on the PATH, driven by playwright; without it tests skip."""

from __future__ import annotations

import os
import shutil
from typing import Any, NamedTuple

import pytest


class Watched(NamedTuple):
    """A page with all that went wrong on it, and the address of everything it asked for.

    ``page`` is playwright's; ``errors`` holds console errors and warnings, uncaught exceptions and
    failed requests as text.
    """

    page: Any
    errors: list[str]
    requests: list[str]


@pytest.fixture(scope="session")
def chromium():
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        # Where CI has installed it, a test that does not see it is a fault.
        missing = pytest.fail if os.environ.get("ERA_REQUIRE_BROWSER") else pytest.skip
        missing("no chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def watch(chromium):
    """Open pages: ``watch(viewport={"width": 390, "height": 844}, color_scheme="dark")``."""
    contexts = []

    def open_page(**options: Any) -> Watched:
        context = chromium.new_context(**options)
        contexts.append(context)
        watched = Watched(context.new_page(), [], [])
        page = watched.page
        page.on("request", lambda request: watched.requests.append(request.url))
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        page.on("requestfailed", lambda request: watched.errors.append(f"failed: {request.url}"))
        page.on(
            "console",
            lambda message: (
                watched.errors.append(message.text)
                if message.type in ("error", "warning")
                else None
            ),
        )
        return watched

    yield open_page
    for context in contexts:
        context.close()
