"""Runs of tools.evaluate."""

import json

from tools import evaluate


def measured(place, capsys, *arguments):
    """Run the command with --json -> {column: {measure: [value, low, high]}}."""
    data = ["--data", str(place / "photos"), "--json"]
    evaluate.main([*map(str, arguments), *data])
    return json.loads(capsys.readouterr().out)


def read(path, *flags):
    """Read or draw images as the command with these flags does -> images, species."""
    args = evaluate.parse([str(path), "--count", "5", *flags])
    return evaluate.read_images(path, args)
