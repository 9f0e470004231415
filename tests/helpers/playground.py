"""The kernel of the page, run in node or in a browser beside its PyTorch reference."""

import base64
import json
import shutil
import subprocess

import pytest

from diffusion import Diffuser
from tests.helpers.project import GUARD, PROJECT
from tools.playground.weights import dequantised

KERNEL = PROJECT / "tools" / "playground" / "kernel.js"
WORKER = PROJECT / "tools" / "playground" / "worker.js"
# Both decode base64, and return what a body returns, typed arrays as lists.
LOAD = """
const bytes = Uint8Array.from(atob(given.weights), (c) => c.charCodeAt(0));
const models = Lab.load(bytes.buffer, given.manifest);
"""
PLAIN = """
const plain = (value) => ArrayBuffer.isView(value) ? Array.from(value)
  : Array.isArray(value) ? value.map(plain) : value;
const f32 = (list) => Float32Array.from(list);
"""


def encoded(packed):
    """Return (bytes, manifest) as plain types."""
    return {"weights": base64.b64encode(packed[0]).decode(), "manifest": packed[1]}


def in_node(body, data=None, packed=(b"", {})):
    """Run the body of a JavaScript function in node; return its result."""
    # The body sees Lab, models, data, and f32, which makes a Float32Array of a list.
    program = shutil.which("node")
    if not program:
        pytest.skip("needs node, which runs JavaScript outside a browser")
    script = f"""
require({json.dumps(str(KERNEL))});
const given = JSON.parse(require("fs").readFileSync(0));
{LOAD} {PLAIN}
const result = ((data) => {{ {body} }})(given.data);
process.stdout.write(JSON.stringify(plain(result)));
"""
    done = subprocess.run(
        [program, "-e", script],
        input=json.dumps(encoded(packed) | {"data": data}),
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def in_browser(opened, packed):
    """Load kernel and models into a BrowserPage -> compute(body, data) as `in_node`."""
    opened.page.add_script_tag(content=KERNEL.read_text("utf-8"))
    opened.evaluate(f"(given) => {{ {LOAD} window.models = models; }}", encoded(packed))

    def compute(body, data=None):
        function = f"(data) => {{ {PLAIN} return plain((() => {{ {body} }})()); }}"
        return opened.evaluate(function, data)

    return compute


def references(models):
    """Return {name: model} with weights of 8 bits, of {name: (model, metadata)}."""
    found = {}
    for name, (model, _) in models.items():
        if not hasattr(model, "decoder"):
            # Products in float32, on any processor.
            twin = Diffuser(**model.args, bfloat16=False)
            twin.load_state_dict(model.state_dict())
            model = twin.eval()
        model.load_state_dict(dequantised(model))
        found[name] = model
    return found
