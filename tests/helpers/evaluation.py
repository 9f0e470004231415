"""Runs of tools.evaluate."""

import json

from tools import evaluate


def measured(place, capsys, *arguments):
    """Run the command with --json -> {set of images: {metric: [value, low, high]}}."""
    data = ["--data", str(place / "photos"), "--json"]
    evaluate.main([*map(str, arguments), *data])
    return json.loads(capsys.readouterr().out)


def read(path, *flags):
    """Read or sample images as the command with these flags does -> ImageSet."""
    args = evaluate.parse([str(path), "--count", "5", *flags])
    return evaluate.read_images(path, args, evaluate.read_metadata([path]))
