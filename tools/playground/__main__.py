"""Write docs/playground.html: one page in which the trained models run.

python -m tools.playground
python -m tools.playground --to playground.html

The page opens from the file system, needs no network, and computes in the browser. Its
models are those of models/, and its numbers those of log/ and of the metadata of the
weights, both below --out. What needs a file that is missing is left out, and named. The
same files make the same bytes.
"""

from pathlib import Path

from utils.cli import guard, run
from utils.cli.arguments import command_line


def parse(argv=None):
    """Return the checked command line."""
    parser = command_line(__doc__, "--out")
    parser.add_argument(
        "--to",
        type=Path,
        metavar="FILE",
        help="file to write (default: docs/playground.html below --out)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    guard(parse)

import logging

from tools.playground.content import content
from tools.playground.page import page
from tools.playground.weights import load_models, pack
from utils.files import write_file

log = logging.getLogger(__name__)


def main(argv=None):
    args = parse(argv)
    weights, manifest = pack(load_models(args.out))
    facts, left_out = content(args.out)
    for line in left_out:
        log.warning("%s", line)
    path = args.to or args.out / "docs" / "playground.html"
    write_file(path, page(facts, weights, manifest).encode())


if __name__ == "__main__":
    run(main)
