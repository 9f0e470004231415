"""A headless Chromium for tests: pages from the file system, without a network."""

import shutil
from contextlib import contextmanager

import pytest

from tests.helpers.project import GUARD

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def chromium():
    """Start the system's browser -> playwright's Browser; skips where there is none."""
    api = pytest.importorskip(
        "playwright.sync_api",
        reason="needs the package playwright: pip install -e '.[dev]'",
    )
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if not program:
        pytest.skip("needs Chromium, such as Debian's package chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


class BrowserPage:
    """A page, and what it said and asked for since it was opened.

    `page` is playwright's Page; `errors` are errors and warnings of the console and
    exceptions that nothing caught; `requests` are the addresses that were asked for,
    the page's own included.
    """

    def __init__(self, context, address):
        self.errors, self.requests = [], []
        context.set_default_timeout(1000 * GUARD)
        self.page = context.new_page()
        self.page.on("console", self.note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        context.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def note(self, message):
        """Keep an error or a warning of the console."""
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def evaluate(self, expression, argument=None):
        """Return the value of an expression, or of a function of the argument."""
        return self.page.evaluate(expression, argument)

    def press(self, key):
        """Press a key, such as "Tab" or "ArrowRight"."""
        self.page.keyboard.press(key)


@contextmanager
def opener(browser):
    """Give a function that opens an address without a network -> BrowserPage."""
    # Its options are those of playwright's new_context: viewport, locale,
    # color_scheme, reduced_motion.
    contexts = []

    def open_page(address, **options):
        contexts.append(browser.new_context(offline=True, **options))
        return BrowserPage(contexts[-1], address)

    yield open_page
    for context in contexts:
        context.close()
