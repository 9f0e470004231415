"""Text whose numbers come from files: placeholders, and what stands in their place.

{{FILE > KEY > KEY}}              a value: of JSON, of a CSV log's column, or of the
                                  description in a file of weights
{{FILE > KEY / FILE > KEY}}       the quotient of two
{{... as percent}}                in another form: see FORMS
{{NAME of FILE, FILE}}            what a function makes of the contents of files

A KEY may be `first`, `last`, `sum` or `count`. An estimate is [value, low, high].
Standard library only, but for weights.
"""

import csv
import json
import re

from utils.cli import UserError

PLACEHOLDER = re.compile(r"\{\{(.+?)\}\}", re.DOTALL)


def filled(template, files, tables):
    """Return the text with a value or table in the place of every placeholder.

    files: a `Files`; tables: {NAME: contents of files -> text}.

    Raises:
        UserError: if a file or a value in it is not there.
    """

    def text_of(found):
        asked = " ".join(found[1].split())
        name, _, names = asked.partition(" of ")
        if name in tables:
            return tables[name](*map(files, names.split(", ")))
        expression, _, form = asked.partition(" as ")
        if form not in ("", *FORMS):
            raise UserError(f"{{{{{asked}}}}}: no form {form!r}; one of {list(FORMS)}")
        values = [value_at(path, files) for path in expression.split(" / ")]
        if len(values) == 1:
            return FORMS[form or "plain"](values[0])
        return FORMS[form or "ratio"](number(values[0]) / number(values[1]))

    return PLACEHOLDER.sub(text_of, template)


# Files ---------------------------------------------------------------------------


class Files:
    """Contents of the files below a folder, each read once.

    remedy: name of a file -> what to do where it is not there, or is damaged.
    """

    def __init__(self, root, remedy):
        self.root, self.remedy, self.contents = root, remedy, {}

    def __call__(self, name):
        """Return what the file of this name holds.

        Raises:
            UserError: if it is not there, or cannot be read.
        """
        if name not in self.contents:
            self.require(name)
            try:
                self.contents[name] = READERS[name.rpartition(".")[2]](self.root / name)
            except (KeyError, IndexError, ValueError) as error:
                raise UserError(
                    f"cannot read {self.root / name} ({error}); {self.remedy(name)}"
                ) from None
        return self.contents[name]

    def require(self, name):
        """Raise a UserError, which says how to make it, if the file is not there."""
        if not (self.root / name).is_file():
            raise UserError(f"{self.root / name} is not there; {self.remedy(name)}")


def read_json(path):
    """Return the content of a JSON file."""
    return json.loads(path.read_text("utf-8"))


def read_csv(path):
    """Return a CSV log: {column: its numbers, without empty cells}."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def read_description(path):
    """Return the description of a file of weights, with their number `parameters`."""
    from utils.checkpoint import load_checkpoint  # torch, which JSON does not need

    weights, about = load_checkpoint(path)
    return {**about, "parameters": sum(value.numel() for value in weights.values())}


READERS = {"json": read_json, "csv": read_csv, "pkl": read_description}


# Values --------------------------------------------------------------------------


def value_at(path, files):
    """Return the value at FILE > KEY > KEY.

    Raises:
        UserError: if there is none.
    """
    name, *keys = (part.strip() for part in path.split(" > "))
    value = files(name)
    for key in keys:
        try:
            value = step_into(value, key)
        except (KeyError, IndexError, TypeError):
            raise UserError(
                f"{files.root / name} has no {' > '.join(keys)!r}; mend the template, "
                f"or {files.remedy(name)}"
            ) from None
    return value


def step_into(value, key):
    """Return what is at a key of a dict, or of the list of its values."""
    if isinstance(value, dict) and key in value:
        return value[key]
    values = list(value.values()) if isinstance(value, dict) else value
    if key in ("first", "last"):
        return values[0 if key == "first" else -1]
    return {"sum": sum, "count": len}[key](values)


def is_estimate(value):
    """Tell [value, low, high] from a list of settings: one of the three is a float."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and any(isinstance(part, float) for part in value)
    )


def number(value):
    """Return the number itself, of an estimate its value."""
    return value[0] if is_estimate(value) else value


# Forms ---------------------------------------------------------------------------


def rounded(value):
    """Write three digits; whole numbers in full."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def plain(value):
    """Write a value of any kind, an estimate with its interval."""
    if value is None:
        return "-"
    if isinstance(value, str | bool):
        return str(value)
    if is_estimate(value):
        return "{} [{}, {}]".format(*map(rounded, value))
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return rounded(value)


def exact(value):
    """Write a setting, with all its digits."""
    return f"{value:g}" if isinstance(value, float) else plain(value)


def percent(value):
    """Write a share, with its interval; two decimals where it is below a hundredth."""
    parts = value if is_estimate(value) else [value]
    told = [f"{100 * v:.{2 if abs(v) < 0.01 else 1}f}" for v in parts]
    return f"{told[0]} %" + (f" [{told[1]}, {told[2]}]" if told[1:] else "")


FORMS = {
    "plain": plain,
    "exact": exact,
    "value": lambda value: rounded(number(value)),
    "percent": percent,
    "ratio": lambda value: f"{value:.1f}",
    "minutes": lambda seconds: f"{seconds / 60:.1f} min",
    "milliseconds": lambda seconds: rounded(1000 * seconds) + " ms",
    "millions": lambda value: f"{rounded(value / 1e6)} million",
}


def markdown(head, rows):
    """Return a table of texts; all columns but the first are of numbers."""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
