"""What the tests of the page share: a browser, and the models of the page."""

import pytest

from tests.helpers.browser import chromium, opener
from tests.helpers.playground import in_browser, in_node, references
from tests.helpers.project import PROJECT
from tools.playground.weights import load_models, pack


@pytest.fixture(scope="package")
def browser():
    """Return a headless Chromium; skips where there is none."""
    with chromium() as found:
        yield found


@pytest.fixture
def browser_page(browser):
    """Return open(address, **options) -> BrowserPage, without a network."""
    with opener(browser) as open_page:
        yield open_page


@pytest.fixture(scope="package")
def packed():
    """Return (bytes, manifest) of the committed models."""
    return pack(load_models(PROJECT))


@pytest.fixture(scope="package")
def trained():
    """Return {name in the page: model} with the weights of 8 bits that the page has."""
    return references(load_models(PROJECT))


@pytest.fixture(
    scope="package", params=["chromium", pytest.param("node", marks=pytest.mark.slow)]
)
def lab(request, packed):
    """Return compute(body, data): a function's body in JavaScript -> its result.

    The body sees Lab, the models of the page and `data`, plain types.
    """
    if request.param == "node":
        yield lambda body, data=None: in_node(body, data, packed)
        return
    with opener(request.getfixturevalue("browser")) as open_page:
        yield in_browser(open_page("about:blank"), packed)
