"""Calls of functions of which only a part of the arguments is known.

A completion may give the kit's functions more arguments: labels, a step size, tables.
`fill` finds values for the required ones by their names, `own_calls` finds how the
completion itself calls a function.
"""

import ast
import inspect
import random
import sys

import torch

from ..checks import NotExamined

# Names of arguments: parts of a name, and whole names.
LABELS = ("label", "class", "cls", "cond", "species", "kind", "categor", "targets")
SHORT_LABELS = ("y", "c", "lab", "cat")
COUNTS = ("num_classes", "n_classes", "num_class", "n_class", "class_num", "num_labels")
POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


# The signature ---------------------------------------------------------------------


def is_label(name):
    """Tell whether an argument of this name holds class labels."""
    name = name.lower()
    return (
        name in SHORT_LABELS or any(part in name for part in LABELS)
    ) and not is_count(name)


def is_count(name):
    """Tell whether an argument of this name is the number of classes."""
    return name.lower() in COUNTS


def parameters(function):
    """Return the named parameters of a function, bound or not, as a list."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise NotExamined(f"the signature of {function} is not known") from error
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in found if p.kind not in variadic and p.name != "self"]


def label_parameter(function):
    """Return the first parameter of a function that holds labels, or None."""
    return next((p for p in parameters(function) if is_label(p.name)), None)


def extra_required(function, known):
    """Return the required parameters after the first `known` ones."""
    return [p for p in parameters(function)[known:] if p.default is p.empty]


def fill(function, given, values):
    """Return (args, kwargs) of a call: the given arguments and the required others.

    values: a function of a parameter's name that returns its value, or None if it knows
    no such value.

    Raises:
        NotExamined: if the value of a required argument cannot be found, or the
            function takes fewer arguments than are given.
    """
    # More positional arguments than it takes would be our mistake.
    named = parameters(function)
    taken = [p for p in named if p.kind in POSITIONAL]
    if len(taken) < len(given):
        raise NotExamined(f"{name_of(function)} takes {len(taken)} arguments")
    # Those without a default, by their names.
    kwargs = {}
    for parameter in extra_required(function, len(given)):
        value = values(parameter.name)
        if value is None:
            raise NotExamined(
                f"no value is known for the argument {parameter.name} of "
                f"{name_of(function)}"
            )
        kwargs[parameter.name] = value
    return given, kwargs


def name_of(function):
    """Return the name of a function for a message."""
    return getattr(function, "__qualname__", type(function).__name__)


# The text of the completion --------------------------------------------------------


def syntax_tree(path):
    """Return the syntax tree of a source file.

    Raises:
        NotExamined: if it is missing or not valid Python.
    """
    try:
        return ast.parse(path.read_text("utf-8", errors="replace"))
    except (OSError, SyntaxError, ValueError) as error:
        raise NotExamined(f"{path.name} cannot be read as Python") from error


def called_name(node):
    """Return the last part of the name that a Call node calls, or None."""
    return getattr(node.func, "attr", getattr(node.func, "id", None))


def own_calls(tree, name):
    """Return the Call nodes of the syntax tree that call a function of this name."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [call for call in calls if called_name(call) == name]


def supplies(call, position, name):
    """Tell whether a Call node gives an argument, by position or by name."""
    # A call with *args or **kwargs may give any.
    starred = any(isinstance(a, ast.Starred) for a in call.args)
    names = [keyword.arg for keyword in call.keywords]
    return starred or len(call.args) > position or name in names or None in names


def keyword_value(tree, function_name, name, namespace):
    """Return the value that the completion itself gives to an argument, or None.

    Only constants and names of its module are evaluated.
    """
    # The value of a name is that at the end of the import.
    for call in own_calls(tree, function_name):
        for keyword in call.keywords:
            if keyword.arg == name and isinstance(keyword.value, ast.Name):
                return namespace.get(keyword.value.id)
            if keyword.arg == name and isinstance(keyword.value, ast.Constant):
                return keyword.value.value
    return None


def seed_all(seed):
    """Seed all the random numbers that a completion may use."""
    random.seed(seed)
    torch.manual_seed(seed)
    # The completion has imported numpy, if it uses it.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
