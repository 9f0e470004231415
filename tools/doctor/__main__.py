"""Examine somebody's own completion of the starter kit.

python -m tools.doctor PATH
python -m tools.doctor PATH --lang zh
python -m tools.doctor PATH --data flowers --markdown > examination.md
python -m tools.doctor PATH --gradescope results.json

PATH is a folder with the file names of the starter kit. First the text of its files is
read; then its code runs in a separate process, on a copy, with limits of time, memory
and output, without network. Each finding says what was seen, what was expected, the
likely cause and where to read. Points are a proposal to the teacher. With --data the
losses of the saved models are measured on validation photos.

The exit code is 0 if nothing was found, and 1 otherwise.
"""

import json
import sys
from pathlib import Path

from utils.cli import guard, run
from utils.cli.arguments import command_line


def parse(argv=None):
    """Return the checked command line."""
    parser = command_line(__doc__)
    parser.add_argument("path", type=Path, metavar="PATH", help="folder to examine")
    parser.add_argument(
        "--lang", choices=("en", "zh"), default="en", help="language (default: en)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="folder of class folders, whose validation photos are used (default: no "
        "photos)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument(
        "--gradescope",
        type=Path,
        metavar="FILE",
        help="also write the results.json of a Gradescope autograder",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    guard(parse)

from tools.doctor import output
from tools.doctor.examination import examine, validation_images
from utils.files import prepare_target, write_json


def main(argv=None):
    """Examine, print, and leave with 1 if something was found."""
    args = parse(argv)
    target = prepare_target(args.gradescope) if args.gradescope else None
    photos = validation_images(args.data) if args.data else None
    found = examine(args.path, photos)

    # What was asked for, on stdout.
    if args.json:
        text = json.dumps(output.as_json(found, args.lang), indent=1)
    else:
        form = output.as_markdown if args.markdown else output.as_text
        text = form(found, args.lang)
    print(text)
    if target:
        write_json(target, output.as_gradescope(found, args.lang))
    if found.names():
        sys.exit(1)


if __name__ == "__main__":
    run(main)
