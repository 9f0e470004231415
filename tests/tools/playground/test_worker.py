"""The Web Worker in a browser: answers, states, cancelled requests and errors."""

import base64
import statistics

import pytest
import torch

from tests.helpers.playground import KERNEL, WORKER
from tools.playground.page import POLICY

# Requests by their order, and all messages that come until each is answered.
CLIENT = """
(source) => {
  const worker = new Worker(URL.createObjectURL(new Blob(source)));
  window.ask = (requests) => new Promise((resolve) => {
    const answers = requests.map(() => []);
    let open = requests.length;
    worker.onmessage = ({ data: { id, ...rest } }) => {
      const list = answers[id % 1000];
      // A late request is sent when the first state has come.
      if ("state" in rest && rest.state.step === 0 && id % 1000 === 0) started();
      list.push({ ...rest, then: [...answers.map((a) => a.length)] });
      if (!("state" in rest) && --open === 0) resolve(answers);
    };
    window.round = (window.round ?? 0) + 1000;
    const send = ({ late, ...request }, i) => {
      worker.postMessage({ id: round + i, ...request });
    };
    requests.forEach((request, i) => request.late || send(request, i));
    window.started = () => requests.forEach((r, i) => r.late && send(r, i));
  });
  window.lists = (value) => JSON.parse(JSON.stringify(value, (_, v) =>
    ArrayBuffer.isView(v) ? Array.from(v) : v));
}
"""
TIME = """
async (requests) => {
  const start = performance.now();
  await ask(requests);
  return performance.now() - start;
}
"""
ASK = "async (requests) => lists(await ask(requests))"


@pytest.fixture(scope="module")
def page(browser, packed, tmp_path_factory):
    """Return playwright's Page with a worker that has loaded the models."""
    # A page from the file system, which forbids the network as ours does.
    path = tmp_path_factory.mktemp("worker") / "page.html"
    path.write_text(
        f'<!DOCTYPE html><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<link rel="icon" href="data:,">',
        "utf-8",
    )
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(path.as_uri())
    page.evaluate(CLIENT, [path.read_text("utf-8") for path in (KERNEL, WORKER)])
    weights = base64.b64encode(packed[0]).decode()
    load = {"call": "load", "args": {"weights": weights, "manifest": packed[1]}}
    # A request that comes with the weights waits for them.
    code = {"model": "ae", "z": [0.0] * 64}
    answers = page.evaluate(ASK, [load, {"call": "decode", "args": code}])
    assert answers[0][0]["result"] == list(packed[1])
    assert len(answers[1][0]["result"]) == 3 * 24 * 24
    yield page
    context.close()


@pytest.fixture
def ask(page):
    """Return a function: requests -> the messages that answer each, in order."""
    return lambda *requests: page.evaluate(ASK, list(requests))


def sample(**args):
    return {"call": "sample", "args": {"model": "diffusion", "steps": 3, **args}}


def test_answers_are_those_of_the_kernel(ask, trained):
    torch.manual_seed(0)
    z, x = torch.randn(1, 64), torch.randn(1, 3, 24, 24)
    [[code], [estimate], [numbers]] = ask(
        {"call": "decode", "args": {"model": "vae", "z": z[0].tolist()}},
        {
            "call": "denoise",
            "args": {
                **{"model": "diffusion", "x": x.flatten().tolist()},
                **{"sigma": 1.0, "label": 1},
            },
        },
        {"call": "normal", "args": {"seed": 1, "count": 5}},
    )
    with torch.no_grad():
        decoded = trained["vae"].decoder(z).flatten()
        denoised = trained["diffusion"].denoise(x, torch.ones(1), torch.tensor([1]))
    assert (torch.tensor(code["result"]) - decoded).abs().max() < 1 / 255
    found = torch.tensor(estimate["result"]).view_as(denoised)
    assert (found - denoised).abs().max() < 2 / 255
    assert len(numbers["result"]) == 5


def test_a_sample_reports_every_state_and_then_the_image(ask):
    [messages] = ask(sample(seed=4, label=0))
    *states, last = messages
    states = [message["state"] for message in states]
    assert [state["step"] for state in states] == [0, 1, 2, 3]
    assert all(state["steps"] == 3 for state in states)
    sigmas = [state["sigma"] for state in states]
    assert sigmas == sorted(sigmas, reverse=True) and sigmas[-1] == 0
    assert last["result"] == states[-1]["x"] and states[-1]["estimate"] is None
    # The same seed makes the same image, another one another.
    [*_, again], [*_, other] = ask(
        {**sample(seed=4, label=0), "kind": "a"},
        {**sample(seed=5, label=0), "kind": "b"},
    )
    assert again["result"] == last["result"] != other["result"]


def test_a_newer_request_of_the_same_kind_cancels_an_older_one(ask):
    code = {"call": "decode", "args": {"model": "vae", "z": [0.0] * 64}}
    first, second, decoded = ask(sample(seed=1), sample(seed=2), code)
    # The first may have begun before the worker received the second.
    assert first[-1].keys() == {"cancelled", "then"} and len(first) < 5
    assert "result" in second[-1] and len(second) == 5
    # A decoder does not wait for the sample of another kind to end.
    assert decoded[0]["then"][1] < 5


def test_a_running_sample_is_cancelled_between_two_steps(ask):
    running, newer = ask(
        sample(seed=1, steps=50), {**sample(seed=2, steps=1), "late": True}
    )
    assert running[-1].keys() == {"cancelled", "then"} and len(running) < 50
    assert "result" in newer[-1]


@pytest.mark.parametrize(
    "request_, words",
    [
        ({"call": "decode", "args": {"model": "x", "z": []}}, "no model x"),
        ({"call": "decode", "args": {"model": "vae", "z": [1]}}, "length of z"),
        ({"call": "draw", "args": {}}, "no call draw"),
    ],
)
def test_a_wrong_request_is_answered_by_an_error(ask, request_, words):
    [[answer]] = ask(request_)
    assert words in answer["error"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "request_, limit",
    [
        ({"call": "decode", "args": {"model": "vae", "z": [0.1] * 64}}, 50),
        (sample(label=0, steps=1), 1000),
        (sample(label=0, steps=8, guidance=2.0), 8000),
    ],
)
def test_an_answer_comes_in_time(page, request_, limit):
    """Milliseconds, medians of 20; on two cores with nothing else to do."""
    times = [page.evaluate(TIME, [request_]) for _ in range(20)]
    print(f"{request_['call']}: {statistics.median(times):.0f} ms")
    assert statistics.median(times) < limit
