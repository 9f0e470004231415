"""The page in a browser: controls, keyboard, languages, and no request."""

import json
import re
import time
from pathlib import Path
from statistics import median

import pytest

from tests.helpers.browser import opener
from tests.helpers.project import GUARD, PROJECT
from tools.playground import content
from tools.playground.page import page, read_texts
from tools.playground.weights import load_models, pack

# What a control changes: the pictures or the text of an element.
SLIDERS = {
    "components": "#reconstructions",
    **{f"axis-{i}": "#decoded" for i in range(content.AXES)},
    "sigma": "#estimates",
    "between": "#sampled",
    "steps": "#states",
    "guidance": "#sampled",
    "brush": "#brush-value",
    "strength": "#edited",
    "stage": "#stage-samples",
}
BUTTONS = {  # group of buttons, or button -> what it changes
    "#example": "#reconstructions",
    "#draw-code": "#decoded",
    "#draw-own": "#decoded",
    "#mean-code": "#decoded",
    "#noised-image": "#estimates",
    "#network": "#estimates",
    "#given-species": "#estimates",
    "#new-noise": "#estimates",
    "#species": "#sampled",
    "#next-seed": "#sampled",
    "#metric": "#quality-plot",
    "#curve": "#evaluations-plot",
    "#theme": "html",
}
WORKING = ("denoiser-state", "sampler-state", "edit-state")
SNAPSHOT = """
(selector => {
  const node = document.querySelector(selector);
  const pictures = [...node.querySelectorAll("canvas")];
  if (node.tagName === "CANVAS") pictures.push(node);
  return JSON.stringify([pictures.map((c) => c.toDataURL()), node.dataset.theme,
    pictures.length && selector !== "html" ? "" : node.innerHTML.length > 1e5
      ? "" : node.innerHTML]);
})(%s)
"""
FOCUSABLE = """
[...document.querySelectorAll("a[href], button, input, canvas[tabindex], summary, "
  + "[role=button][tabindex]")].filter((n) => !n.disabled && n.getClientRects().length)
"""


class Reader:
    """A reader of the page: looks, waits, and uses mouse or keyboard."""

    def __init__(self, browser):
        self.browser = browser

    def js(self, expression):
        return self.browser.evaluate(expression)

    def wait(self, condition):
        """Wait until an expression holds, or no test could go on."""
        end = time.monotonic() + GUARD
        while not self.js(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def settle(self):
        """Wait until nothing computes, and two looks see the same pictures."""
        for name in WORKING:
            self.wait(f"/\\d/.test(document.getElementById('{name}').textContent)")
        seen = None
        while seen != (seen := self.look("main")):
            time.sleep(0.1)

    def look(self, selector):
        return self.js(SNAPSHOT % json.dumps(selector))

    def changes(self, selector, action):
        """Do something, and wait until an element shows something else."""
        before = self.look(selector)
        self.js(action)
        end = time.monotonic() + GUARD
        while self.look(selector) == before:
            assert time.monotonic() < end, (selector, action)
            time.sleep(0.02)

    def press(self, *keys):
        for key in keys:
            self.browser.press(key)

    def text(self, selector):
        return self.js(f"document.querySelector('{selector}').textContent")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page of the committed weights, with few images for its principal axes."""
    path = tmp_path_factory.mktemp("page") / "playground.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "REFERENCE", 30)
        patch.setattr(content, "PER_SPECIES", 1)
        patch.setattr(content, "COMPONENTS", (1, 4, 16, 28))
        facts, left_out = content.content(PROJECT)
    assert not left_out
    weights, manifest = pack(load_models(PROJECT))
    path.write_text(page(facts, weights, manifest), "utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def reader(browser, address):
    """A reader of the open page in English, for whom nothing computes."""
    with opener(browser) as open_page:
        reader = Reader(open_page(address, locale="en-US"))
        reader.settle()
        yield reader


def put(name, value):
    """Return what moves a slider to a value, as a reader's hand does."""
    node = f"document.getElementById('{name}')"
    return f"{node}.value = {value}, {node}.dispatchEvent(new Event('input'))"


def test_every_section_is_there_and_nothing_is_unfilled(reader):
    shown = "[...document.querySelectorAll('section')].map((s) => !s.hidden)"
    assert reader.js(shown) == [True] * 5
    words = reader.js("document.body.innerText")
    assert not re.search(r"undefined|NaN|\{\w*\}|\[object", words)
    assert reader.text("#left-out") == ""


@pytest.mark.parametrize("name", SLIDERS)
def test_every_slider_changes_what_it_should(reader, name):
    reader.settle()
    node = f"document.getElementById('{name}')"
    value = float(reader.js(f"{node}.value"))
    low, high = (float(reader.js(f"{node}.{end}")) for end in ("min", "max"))
    said = reader.text(f"#{name}-value")
    reader.changes(SLIDERS[name], put(name, high if value < high else low))
    assert reader.text(f"#{name}-value") != said
    reader.changes(SLIDERS[name], put(name, value))
    reader.settle()


def test_no_slider_was_forgotten(reader):
    ranges = "[...document.querySelectorAll('input[type=range]')].map((n) => n.id)"
    assert set(reader.js(ranges)) == set(SLIDERS)


@pytest.mark.parametrize("place", BUTTONS)
def test_every_button_changes_what_it_should(reader, place):
    buttons = f"[...document.querySelectorAll('{place} button, button{place}')]"
    count = reader.js(f"{buttons}.length")
    chosen = reader.js(f"{buttons}.findIndex((b) => b.ariaPressed === 'true')")
    # A group: each that is not pressed, and at last the one that was.
    others = [i for i in range(count) if i != chosen] + [chosen] * (count > 1)
    for i in others or [0]:
        reader.settle()
        reader.changes(BUTTONS[place], f"{buttons}[{i}].click()")
        if count > 1:
            pressed = reader.js(f"{buttons}.map((b) => b.ariaPressed)")
            assert [p == "true" for p in pressed] == [j == i for j in range(count)]


def test_seeds_make_other_flowers_and_the_same_seed_the_same(reader):
    reader.settle()
    first = reader.look("#sampled")
    value = reader.js("document.getElementById('seed-a').value")
    reader.changes("#sampled", put("seed-a", 77))
    reader.settle()
    reader.js(put("seed-a", value))
    reader.wait("document.getElementById('sampler-state').textContent")
    reader.settle()
    assert reader.look("#sampled") == first


def test_guidance_is_offered_only_where_it_acts(reader):
    """Not in one step, which begins above its noise levels; not without a species."""
    disabled = "document.getElementById('guidance').disabled"
    assert not reader.js(disabled)
    reader.changes("#states", put("steps", 1))
    assert reader.js(disabled)
    reader.settle()
    reader.changes("#states", put("steps", 2))
    reader.settle()
    assert not reader.js(disabled)


def test_every_step_is_shown_and_the_last_state_is_the_image(reader):
    reader.settle()
    pictures = "[...document.querySelectorAll('%s canvas')].map((c) => c.toDataURL())"
    states = reader.js(pictures % "#states")
    steps = int(reader.js("document.getElementById('steps').value"))
    assert len(states) == 2 * steps + 1
    assert states[-1] == reader.js(pictures % "#sampled")[0]
    # From sigma 0 on, the last estimate is the image.
    assert states[-2] == states[-1]


def test_a_newer_request_takes_the_place_of_older_ones(reader):
    reader.settle()
    for steps in (8, 7, 6, 5, 4, 3):
        reader.js(put("steps", steps))
    reader.wait("document.querySelectorAll('#states canvas').length === 7")
    reader.settle()
    expected = reader.look("#sampled")
    reader.changes("#states", put("steps", 2))
    reader.settle()
    reader.changes("#states", put("steps", 3))
    reader.settle()
    assert reader.look("#sampled") == expected
    reader.changes("#states", put("steps", 2))
    reader.settle()


def test_arrow_keys_walk_on_the_map(reader):
    reader.settle()
    label = "document.getElementById('map').getAttribute('aria-label')"
    before, picture = reader.js(label), reader.look("#decoded")
    reader.js("document.getElementById('map').focus()")
    reader.press("ArrowLeft", "ArrowLeft", "ArrowDown")
    reader.wait(f"{label} !== {json.dumps(before)}")
    reader.settle()
    assert reader.look("#decoded") != picture
    numbers = [re.findall(r"-?\d+\.\d", text) for text in (before, reader.js(label))]
    (x, y), (left, down) = [[float(n) for n in pair] for pair in numbers]
    assert left == pytest.approx(x - 0.2, abs=0.11)
    assert down == pytest.approx(y - 0.1, abs=0.11)


def test_keys_paint_a_blob_and_a_flower_is_made_of_it(reader):
    reader.settle()
    reader.js("document.querySelector('#palette button:nth-of-type(5)').click()")
    reader.js("document.getElementById('blob').focus()")
    painted, flower = reader.look("#blob"), reader.look("#edited")
    reader.press("ArrowRight", "ArrowRight", "ArrowDown", "Space")
    reader.wait(f"{SNAPSHOT % json.dumps('#blob')} !== {json.dumps(painted)}")
    assert "15" in reader.text("#blob-state")  # column 13, moved by two
    reader.js("document.getElementById('edit').click()")
    reader.wait(f"{SNAPSHOT % json.dumps('#edited')} !== {json.dumps(flower)}")
    reader.changes("#blob", "document.getElementById('fill').click()")
    reader.settle()


def test_own_picture_is_cut_to_a_square_and_reduced(reader):
    """Red left of a blue square, which is the middle: everything shown is blue."""
    reader.settle()
    reader.changes(
        "#estimates",
        """
        (async () => {
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [300, 100];
          const context = canvas.getContext("2d");
          context.fillStyle = "#ff0000";
          context.fillRect(0, 0, 300, 100);
          context.fillStyle = "#0000ff";
          context.fillRect(100, 0, 100, 100);
          const blob = await new Promise((done) => canvas.toBlob(done));
          const files = new DataTransfer();
          files.items.add(new File([blob], "own.png", { type: "image/png" }));
          const input = document.getElementById("own-picture");
          input.files = files.files;
          input.dispatchEvent(new Event("change"));
        })()
        """,
    )
    reader.settle()
    colours = reader.js(
        """
        (() => {
          const canvas = document.querySelector("#estimates canvas");
          const { data } = canvas.getContext("2d").getImageData(0, 0, 24, 24);
          return [...new Set(new Uint32Array(data.buffer))];
        })()
        """
    )
    assert colours == [0xFFFF0000]  # alpha, blue, green, red


def test_points_of_plots_tell_their_numbers(reader):
    """The plot of minutes has the ladder's models, and their minutes."""
    ladder = json.loads((PROJECT / "log" / "ladder.json").read_text())["models"]
    count = reader.js("document.querySelectorAll('#quality-plot .point').length")
    assert count == len(ladder)
    for i, row in enumerate(ladder.values()):
        point = f"document.querySelectorAll('#quality-plot .point')[{i}]"
        reader.js(f"{point}.focus()")
        words = reader.text("#quality-state")
        assert f" {row['minutes']:.2g} minutes" in words
        kernel = 1000 * row["kernel distance to validation photos"][0]
        assert f" {kernel:.3g} (" in words
    cells = "[...document.querySelectorAll('#quality-table tr')].length"
    assert reader.js(cells) == len(ladder) + 2  # the head and the photos


def test_tab_reaches_every_control(reader):
    reader.settle()
    reader.js("document.activeElement.blur(), window.scrollTo(0, 0)")
    count = reader.js(f"{FOCUSABLE}.length")
    reader.js(f"window.order = {FOCUSABLE}")
    reached = set()
    for _ in range(count + 5):
        reader.press("Tab")
        reached.add(reader.js("window.order.indexOf(document.activeElement)"))
    assert reached >= set(range(count)) and count > 60


def test_both_languages_fill_every_text(reader):
    texts = read_texts()
    for language, lang in (("zh", "zh-CN"), ("en", "en")):
        reader.settle()
        reader.js(f"document.getElementById('lang-{language}').click()")
        assert reader.js("document.documentElement.lang") == lang
        found = reader.js(
            "[...document.querySelectorAll('[data-text]')]"
            ".map((n) => [n.dataset.text, n.textContent])"
        )
        for key, shown in found:
            start = re.escape(texts[key][language].partition("{")[0])
            assert re.match(start, shown), (key, shown)
        assert not re.search(r"undefined|\{\w*\}", reader.js("document.body.innerText"))


def test_the_page_asked_for_nothing_and_had_no_error(reader, address):
    """Last: after all that the tests above did."""
    reader.settle()
    assert reader.browser.errors == []
    # The page itself, its workers, and its empty icon.
    others = [a for a in reader.browser.requests if a != address]
    assert not [a for a in others if not a.startswith(("blob:", "data:,"))]


@pytest.mark.parametrize(("locale", "expected"), [("zh-TW", "zh-CN"), ("fr", "en")])
def test_language_and_colours_are_the_browsers_at_first(
    browser_page, address, locale, expected
):
    theme = {"zh-TW": "dark", "fr": "light"}[locale]
    found = browser_page(address, locale=locale, color_scheme=theme)
    root = found.evaluate("[document.documentElement.lang, document.body.innerText]")
    assert root[0] == expected and ("潜空间" in root[1]) == (expected == "zh-CN")
    assert found.evaluate("document.documentElement.dataset.theme") == theme


@pytest.mark.parametrize("width", [320, 390, 768, 1400])
def test_nothing_is_wider_than_the_window(browser_page, address, width):
    for locale in ("en-US", "zh-CN"):
        size = {"width": width, "height": 800}
        found = browser_page(address, locale=locale, viewport=size)
        assert found.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_the_page_is_usable_within_two_seconds(browser_page, address):
    """Its scripts have run and everything can be clicked; a median of five."""
    event = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    times = [browser_page(address).evaluate(event) for _ in range(5)]
    assert 0 < median(times) < 2000, times


def test_a_page_without_models_says_what_it_lacks(browser_page, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "REFERENCE", 6)
        facts, _ = content.content(tmp_path)
    path = Path(tmp_path, "empty.html")
    path.write_text(page(facts, b"", {}), "utf-8")
    found = browser_page(path.as_uri(), locale="en-US")
    reader = Reader(found)
    hidden = "[...document.querySelectorAll('section')].every((s) => s.hidden)"
    assert reader.js(hidden) and "2. A latent space" in reader.text("#left-out")
    assert found.errors == []
