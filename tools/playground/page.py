"""The page as one HTML file: template, scripts, texts, facts and weights."""

import base64
import json
import tomllib
from pathlib import Path
from string import Template

FOLDER = Path(__file__).parent
SOURCES = ("kernel.js", "worker.js", "page.js", "plots.js")
LANGUAGES = ("en", "zh")
POLICY = (  # nothing is loaded from anywhere; the worker is made from a blob
    "default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob:; "
    "img-src data: blob:; style-src 'unsafe-inline'"
)
SCALE = 1000  # of kernel distances, as in the README


def read_texts():
    """Return {key: {language: text}} of every text of the page."""
    found = tomllib.loads((FOLDER / "texts.toml").read_text("utf-8"))
    return dict(flatten(found))


def flatten(tables, prefix=""):
    """Yield (dotted key, {language: text}) of nested tables."""
    for key, value in tables.items():
        if set(value) == set(LANGUAGES):
            yield prefix + key, value
        else:
            yield from flatten(value, f"{prefix}{key}.")


def plain(value, digits=3):
    """Return a number as text, without an exponent."""
    number = float(f"{value:.{digits}g}")
    return f"{number:,.0f}" if number.is_integer() else f"{number:.10f}".rstrip("0")


def numbers(facts):
    """Return {name: text} of the numbers in texts, of the sections that there are."""
    # What every page has.
    size = facts["size"]
    found = {
        "size": plain(size),
        "values": plain(3 * size**2, 4),
        "reference": plain(facts["reference"]["count"], 4),
        "thousand": plain(SCALE, 4),
    }
    # The sections' own numbers, of those that were not left out.
    if couplings := facts["reference"].get("couplings"):
        found["couplings"] = plain(couplings, 4)
    if part := facts.get("reconstruction"):
        found["length"] = plain(part["length"])
    if part := facts.get("errors"):
        found |= {f"error_{name}": plain(value) for name, value in part.items()}
    if part := facts.get("latent"):
        found |= {"axes": plain(len(part["axes"])), "mapped": plain(len(part["map"]))}
        found["explained"] = plain(100 * part["explained"][-1])
    if part := facts.get("history"):
        found["epochs"] = plain(part["epochs"])
    if part := facts["manifest"].get("diffusion"):
        low, high = part["settings"]["guidance_interval"]
        found |= {"guided_low": plain(low), "guided_high": plain(high)}
    return found | measured(facts)


def measured(facts):
    """Return the numbers in texts that come from the records of evaluations."""
    found = {}
    if part := facts.get("copies"):
        found |= {
            "photos": plain(part["control_images"], 4),
            "copy_images": plain(part["images"], 4),
            "copy_samples": plain(100 * part["samples"]),
            "copy_control": plain(100 * part["control"]),
            "copy_control_images": plain(part["control_images"], 4),
            "nearest_samples": plain(part["nearest"]),
            "nearest_photos": plain(part["nearest_photos"]),
        }
    if part := facts.get("quality"):
        machine = part["machine"]
        found |= {
            "quality_cores": plain(machine["cores"]),
            "quality_machine": machine["processor"].split(",")[0],
        }
    if part := facts.get("evaluations"):
        found["evaluated"] = plain(part["images"], 4)
    return found


def embedded(facts):
    """Return facts as JSON that can stand in a script element."""
    # "</script>" would end the element; in JSON "<" can be written as an escape.
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def page(facts, weights, manifest):
    """Return the page as text: HTML without any reference to another file.

    facts: of tools.playground.content; weights, manifest: of tools.playground.weights.
    """
    facts = facts | {"manifest": manifest, "texts": read_texts()}
    facts["numbers"] = numbers(facts)
    read = {name: (FOLDER / name).read_text("utf-8") for name in SOURCES}
    template = Template((FOLDER / "page.html").read_text("utf-8"))
    return template.substitute(
        policy=POLICY,
        weights=base64.b64encode(weights).decode(),
        facts=embedded(facts),
        kernel=read["kernel.js"],
        worker=read["worker.js"],
        script=read["page.js"] + read["plots.js"],
    )
