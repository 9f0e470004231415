"""Hashes of what a step depends on: code, photos and files."""

import ast
import hashlib
from functools import cache

from utils.cli import UserError
from utils.data.photos import is_wanted, photos_below

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def file_hash(path):
    """Return the SHA-256 of a file in hexadecimal, or None if there is none."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lines_hash(lines):
    """Return the SHA-256 of lines of text."""
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def photos_hash(root):
    """Return a hash of the names and sizes of all photos; None without photos."""
    if not root.is_dir():
        return None
    # Class folders may be links, which `photos_below` does not follow.
    folders = sorted(p for p in root.iterdir() if p.is_dir() and is_wanted(p.name))
    lines = [
        f"{path.relative_to(root).as_posix()} {path.stat().st_size}"
        for folder in folders
        for path in photos_below(folder)
    ]
    return lines_hash(lines) if lines else None


# Code --------------------------------------------------------------------------------


def code_hash(project, files):
    """Return a hash of Python files, and of all they import from the project.

    Comments, docstrings and white space do not count; imports inside functions do.
    """
    found, left = {}, list(files)  # found: path -> hash of its code
    while left:
        path = left.pop()
        if path in found:
            continue
        try:
            found[path], imports = parsed(path.read_bytes())
        except SyntaxError as error:
            raise UserError(f"{path} is no Python: {error}; correct it") from None
        # Those of other packages have no file in the project.
        for level, name in imports:
            # A relative import begins at the file's package, or above it.
            parts = path.relative_to(project).parts[:-level] if level else ()
            left += module_files(project, [*parts, *name.split(".")])
    names = {path.relative_to(project).as_posix(): d for path, d in found.items()}
    return lines_hash(f"{name} {names[name]}" for name in sorted(names))


@cache
def parsed(source):
    """Return (hash, imports) of Python source; imports are (level, dotted name)."""
    # The tree knows no comments, and is printed without the places in the source.
    tree, imports = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {(0, name.name) for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = f"{node.module}." if node.module else ""
            imports |= {(node.level, start + name.name) for name in node.names}
        # A docstring is removed, where there is one.
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False):
            del node.body[0]
    return lines_hash([ast.dump(tree)]), imports


def module_files(project, parts):
    """Return the files of ours that an import of a dotted name runs or reads."""
    # Packages on the way to the module run too; the last part may be a name in it.
    found = []
    for end in range(1, len(parts) + 1):
        path = project.joinpath(*parts[:end])
        found += [path.with_suffix(".py"), path / "__init__.py"]
    return [path for path in found if path.is_file()]


def command_files(project, argv):
    """Return the files that `python` + argv runs: a script, or a module."""
    if argv[0] != "-m":
        return [project / argv[0]]
    # A package runs its __main__ module, and its __init__ before.
    parts = argv[1].split(".")
    main = project.joinpath(*parts, "__main__.py")
    return module_files(project, parts) + [main] * main.is_file()
