"""The project's own code outside tests, as text and as syntax trees."""

import ast

from tests.helpers.project import PROJECT

PATTERNS = ("*.py", "utils/**/*.py", "tools/**/*.py")


def sources(root=PROJECT):
    """Return the project's Python files outside tests, or those of a copy."""
    found = [path for pattern in PATTERNS for path in root.glob(pattern)]
    assert found
    return sorted(found)


def module_of(path):
    """Return the dotted name of a file."""
    name = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def named_imports(tree):
    """Return [(name in the source, dotted name)] of all that a syntax tree imports."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names += [(a.asname or a.name, prefix + a.name) for a in node.names]
    return names


def imported_names(path):
    """Return the dotted names that a file imports, anywhere."""
    return {name for _, name in named_imports(ast.parse(path.read_text("utf-8")))}


def imports():
    """Return {module: the modules of ours that it imports}."""
    modules = {module_of(path): path for path in sources()}

    def longest(name):
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name

    return {
        module: {longest(name) for name in imported_names(path)} - {"", module}
        for module, path in modules.items()
    }
