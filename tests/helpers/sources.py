"""The project's own code outside tests, as text and as syntax trees."""

import ast

from tests.helpers.project import PROJECT

PATTERNS = ("*.py", "utils/**/*.py", "tools/**/*.py")


def sources(*patterns):
    """Return Python files at any depth, by default all outside tests."""
    found = [p for pattern in patterns or PATTERNS for p in PROJECT.glob(pattern)]
    assert found
    return sorted(found)


def module_of(path):
    """Return the dotted name of a file."""
    name = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imported_names(path):
    """Return the dotted names that a file imports, anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


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
