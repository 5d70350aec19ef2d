"""The page in a real browser: it asks, draws the search while it runs, stops, and never runs what a model says.

Needs Debian's `chromium` (or any Chromium on the PATH) and `playwright` of the dev extra: `make test-browser`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Running, serve, stop

pytestmark = pytest.mark.browser

PAYLOADS = (
    "<script>hit()</script>",
    "<img src=x onerror=hit()>",
    "<svg onload=hit()>",
    "<iframe srcdoc='<script>parent.hit()</script>'></iframe>",
    "<a href='javascript:hit()'>x</a>",
    "<details open ontoggle=hit()>",
    "<body onload=hit()>",
    "<input autofocus onfocus=hit()>",
    "<style>@import 'javascript:hit()'</style>",
    "'\"><script>hit()</script>",
    "</textarea><script>hit()</script>",
    "{{constructor.constructor('hit()')()}}",
    "${hit()}",
    "\u202e<script>hit()</script>",
    "<math><mtext><script>hit()</script></mtext></math>",
    "<object data='javascript:hit()'>",
    "<form action='javascript:hit()'><button>x</button></form>",
    "<template><script>hit()</script></template>",
    "<link rel=stylesheet href='javascript:hit()'>",
    "<meta http-equiv=refresh content='0;url=javascript:hit()'>",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    assert path, "no Chromium on the PATH"
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=quiet)
        yield found
        found.close()


@pytest.fixture(scope="module")
def bundled() -> Iterator[Running]:
    running = serve("--threads", "1")
    yield running
    assert stop(running) == 0


def opened(browser, url: str):
    page = browser.new_page(viewport={"width": 1000, "height": 1400})
    page.hits = []
    page.expose_function("hit", lambda: page.hits.append("hit"))
    page.on("dialog", lambda dialog: (page.hits.append(dialog.message), dialog.dismiss()))
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(f"{url}/")
    page.locator("#strategy option").nth(1).wait_for(state="attached")
    return page


def ask(page, question: str, strategy: str) -> None:
    page.fill("#prompt", question)
    page.select_option("#strategy", strategy)
    page.click("#go")
    page.locator("#go:not([disabled])").wait_for(timeout=60_000)


def test_asks_and_draws_the_search(browser, bundled: Running) -> None:
    page = opened(browser, bundled.url)
    ask(page, "Use the numbers 4 5 6 10 and + - * / to make 24.", "tree-of-thoughts")
    assert page.text_content("#error") == ""
    assert "= 24" in page.text_content("#answer")
    assert page.locator("#tree li").count() > 5
    assert "stopped: " in page.text_content("#usage")
    assert page.faults == []
    page.close()


def test_every_strategy_is_offered_with_its_options(browser, server: Running) -> None:
    page = opened(browser, server.url)
    names = page.eval_on_selector_all("#strategy option", "all => all.map(one => one.value)")
    assert {"direct", "self-consistency", "tree-of-thoughts"} <= set(names)
    for name in names:
        page.select_option("#strategy", name)
        assert page.locator("#options input, #options select").count() > 2
        assert page.text_content("#summary")
    assert page.faults == []
    page.close()


def test_an_error_of_the_server_is_shown(browser, server: Running) -> None:
    page = opened(browser, server.url)
    page.locator("summary", has_text="Budget").click()
    page.fill("#tokens", "0")
    ask(page, "anything", "direct")
    assert "budget.tokens" in page.text_content("#error")
    page.close()


def test_nothing_that_a_model_says_is_run(browser, server: Running) -> None:
    page = opened(browser, server.url)
    for payload in PAYLOADS:
        ask(page, f"say {payload}", "direct")
        assert page.text_content("#error") == ""
        assert payload in page.text_content("#answer")  # the scripted engine says what it is asked
    assert page.locator("#answer *, #reasoning *, #tree script, #tree img").count() == 0
    assert page.hits == [] and page.faults == []
    page.close()
