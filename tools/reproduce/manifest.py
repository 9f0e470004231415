"""log/manifest.json: what was made, when, from what, and on which machine."""

import json
import platform
from importlib.metadata import version

from tools.reproduce.hashes import code_hash, command_files, file_hash, photos_hash
from utils.cli import UserError
from utils.files import prepare_target, read_json, replace_file, writing

LIBRARIES = ("torch", "torchvision", "numpy", "matplotlib")
KEYS = {"state", "seconds", "seed", "machine", "inputs"}  # of every record
CHANGES = {"settings": "settings", "code": "code", "photos": "photos"}


def inputs_of(step, place):
    """Return what a step's artefacts depend on: settings, and hashes."""
    # Files that must be there, and those that are read where they are.
    files = {name: file_hash(place.out / name) for name in step.needs}
    for pattern in step.uses:
        for path in place.files(pattern):
            files[path.relative_to(place.out).as_posix()] = file_hash(path)
    # The code, and what it reads of photos.
    code = command_files(place.project, step.argv)
    code += [place.project / name for name in step.code]
    folder = place.photos(step)
    return {
        "settings": list(step.argv),
        "code": code_hash(place.project, code),
        "photos": photos_hash(folder) if folder else None,
        "files": files,
    }


def artefacts_of(step, place):
    """Return {file that a step makes: its hash, or None if it is not there}."""
    return {name: file_hash(place.out / name) for name in step.makes}


def difference(before, now):
    """Return the first key for which two dictionaries differ, or None."""
    names = sorted(before.keys() | now.keys())
    return next((n for n in names if before.get(n) != now.get(n)), None)


def is_record(value):
    """Return whether a value from a file can be the record of a step."""
    return isinstance(value, dict) and value.keys() >= KEYS


class Manifest:
    """The records of all steps, in a file that is written whole or not at all."""

    def __init__(self, path, machine):
        """Read the file, if there is one; machine: that of `machine_facts`."""
        self.path, self.machine = path, machine
        self.content = read_json(path) if path.is_file() else {"steps": {}}
        # Records that lack something were not written by this tool.
        steps = self.content.get("steps") if isinstance(self.content, dict) else None
        if not isinstance(steps, dict) or not all(map(is_record, steps.values())):
            raise UserError(f"{path} is damaged; remove it to make everything anew")

    def record(self, step):
        """Return the record of a step; empty if it was never started."""
        return self.content["steps"].get(step.name, {})

    def reason(self, step, place):
        """Return why a step must run, in words; None if it is up to date."""
        record = self.record(step)
        if not record:
            return "not made yet"
        if record["state"] != "done":
            return "interrupted"
        # Most general first: other code often makes other files too.
        before, now = record["inputs"], inputs_of(step, place)
        for key, word in CHANGES.items():
            if before[key] != now[key]:
                return f"other {word}"
        # Files that it read, and those that it made.
        if name := difference(before["files"], now["files"]):
            return f"other {name}"
        name = difference(record["artefacts"], artefacts_of(step, place))
        return f"{name} is missing or was changed" if name else None

    # Writing -------------------------------------------------------------------------

    def start(self, step, inputs, state_before):
        """Record the start of a step; state_before: time of an older state, or None."""
        # Every command has the seed 0 by default.
        words = list(step.argv)
        seed = words[words.index("--seed") + 1] if "--seed" in words else 0
        self.content["steps"][step.name] = {
            "command": step.line,
            "state": "started",
            "seconds": 0.0,
            "seed": int(seed),
            "machine": self.machine,
            "inputs": inputs,
            "state_before": state_before,
        }
        self.save()

    def stop(self, step, seconds, forget=False):
        """Record that a step was interrupted or has failed; seconds: spent so far."""
        # A step that is continued adds to the seconds.
        self.content["steps"][step.name]["seconds"] = round(seconds, 1)
        if forget:
            del self.content["steps"][step.name]
        self.save()

    def finish(self, step, artefacts, seconds):
        """Record what a step has made: {file: hash}."""
        # The time of an older state served only to continue the step.
        record = self.content["steps"][step.name]
        del record["state_before"]
        record |= {"state": "done", "seconds": round(seconds, 1)}
        record["artefacts"] = artefacts
        self.save()

    def forget(self, steps):
        """Remove the records of steps, so that they are made anew."""
        # Once only: the same call after an interruption goes on.
        names = [step.name for step in steps]
        if self.content.get("forced") == names:
            return
        for name in names:
            self.content["steps"].pop(name, None)
        self.content["forced"] = names
        self.save()

    def complete(self):
        """Record that all chosen steps are done."""
        if self.content.pop("forced", None):
            self.save()

    def save(self):
        """Save the file, with facts of this machine and these versions."""
        steps = self.content["steps"]
        self.content |= {
            "machine": {**self.machine, "system": platform.platform()},
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in LIBRARIES},
            "threads": self.machine["threads"],
            "seeds": {name: record["seed"] for name, record in steps.items()},
        }
        text = json.dumps(self.content, indent=1)
        with writing(prepare_target(self.path)):
            replace_file(self.path, [f"{text}\n".encode()])
