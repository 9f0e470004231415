"""Check everything that is handed in, and pack it into one archive.

python -m tools.submit --check
python -m tools.submit
python -m tools.submit --lang zh

One line per requirement of docs/assignment.md, and per thing that is missing or wrong,
with the command that makes it; the exit code is then 1, and nothing is packed. The
weights' losses on the validation photos are computed anew, if the photos are there.

The archive is a zip file. Its model/ holds Best_MLPAE.pkl, Best_AE.pkl, Best_VAE.pkl
and Best_diffusion.pkl; code, documents, pictures and logs keep their names. Photos,
caches, version control and unfinished trainings are left out. Equal files give equal
archives. A file in its place is replaced only if this command wrote it.
"""

from pathlib import Path

from tools.submit.texts import LANGUAGES, text
from utils.cli import PROJECT, UsageError, UserError, guard, run
from utils.cli.arguments import command_line


def parse(argv=None):
    """Return the checked command line."""
    line = command_line(__doc__, "--data", "--out")
    line.add_argument("--check", action="store_true", help="check only, pack nothing")
    line.add_argument(
        "--archive",
        type=Path,
        metavar="FILE",
        help="archive to write (default: submission.zip in the folder of --out)",
    )
    line.add_argument(
        "--force", action="store_true", help="pack also where something is missing"
    )
    line.add_argument(
        "--lang",
        choices=LANGUAGES,
        default=LANGUAGES[0],
        help="language of what is printed (default: %(default)s)",
    )
    args = line.parse_args(argv)
    # A flag that has no effect is refused.
    for flag, value in (("--archive", args.archive), ("--force", args.force)):
        if args.check and value:
            raise UsageError(
                f"argument {flag}: nothing is packed with --check; omit it"
            )
    for flag, folder in (("--out", args.out), ("--data", args.data)):
        if folder and not folder.is_dir():
            raise UsageError(f"argument {flag}: {folder} is not a folder; name another")
    return args


if __name__ == "__main__":
    guard(parse)

from tools.submit.archive import members, refuse_to_replace, write_archive
from tools.submit.requirements import REQUIREMENTS, findings
from tools.submit.tree import PHOTOS, Tree
from utils.files import prepare_target


def sentence(found, lang):
    """Return what was found, in words, with the command that mends it."""
    words = text(found.key, lang, **found.values)
    if not found.command:
        return words
    return text("remedy", lang, text=words, command=found.command)


def report(name, found, lang):
    """Return the lines of a requirement: one for each fault, or one for all facts."""
    groups = {}
    for finding in found:
        # Every fault has a line of its own.
        key = len(groups) if finding.status == "wrong" else finding.status
        groups.setdefault(key, []).append(finding)
    title = text(name, lang)
    lines = []
    for group in groups.values():
        words = text("joined", lang).join(sentence(f, lang) for f in group)
        status = text(group[0].status, lang)
        words = text("titled", lang, title=title, text=words)
        lines.append(text("line", lang, id=name, status=status, text=words))
    return lines


def check(tree, lang):
    """Print a line per requirement or fault; return the names of those not met."""
    failed = []
    for name in REQUIREMENTS:
        found = findings(tree, name)
        print(*report(name, found, lang), sep="\n", flush=True)
        if any(finding.status == "wrong" for finding in found):
            failed.append(name)
    return failed


def main(argv=None):
    args = parse(argv)
    # The project's own folder is not named in the commands that are printed.
    out = PROJECT if args.out.resolve() == PROJECT else args.out
    tree = Tree(out, args.data or PHOTOS)
    target = args.archive or out / "submission.zip"
    if not args.check:
        refuse_to_replace(target)
        prepare_target(target)
    # Check, then pack.
    failed = check(tree, args.lang)
    if not failed:
        print(text("all", args.lang, count=len(REQUIREMENTS)), flush=True)
    if not args.check and (args.force or not failed):
        write_archive(target, members(tree))
    if failed:
        counts = {"count": len(failed), "total": len(REQUIREMENTS)}
        words = text("failed", args.lang, **counts, names=", ".join(failed))
        packed = args.check or args.force
        raise UserError(words if packed else text("not_packed", args.lang, text=words))


if __name__ == "__main__":
    run(main)
