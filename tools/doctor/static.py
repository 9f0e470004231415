"""What the text of a completion shows; nothing is imported.

Each rule is a function of a file's syntax tree, and yields (name of the finding, line,
what was seen, what was expected).
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tools.doctor.checks import Finding

GENERAL = 0  # the part of files that are not of the starter kit
FILES = {  # of the starter kit -> part of the assignment
    "MLPAutoencoder.py": 1,
    "train_script.py": 1,
    "visualization.py": 1,
    "utils/train.py": 1,
    "utils/scheduler.py": 1,
    "utils/data_processor.py": 1,
    "Autoencoder.py": 2,
    "random_generation.py": 2,
    "VarAutoencoder.py": 3,
    "diffusion.py": 4,
}
NEEDED = {  # file -> names that others import from it
    "MLPAutoencoder.py": ("MLPAutoencoder",),
    "utils/train.py": ("train",),
    "Autoencoder.py": ("Autoencoder",),
    "VarAutoencoder.py": ("VarAutoencoder", "VAE_loss_function"),
    "diffusion.py": ("Diffuser", "diffusion_loss_fn"),
}
BLANKS = {  # functions that the kit leaves to the student
    *("__init__", "forward", "reparameterize", "VAE_loss_function", "train"),
    *("p_theta_sampling", "diffusion_loss_fn", "sample"),
}
# The module is unfinished, and its checks would only repeat that.
UNFINISHED = {"file_missing", "name_missing", "syntax_error", "not_implemented"}
SIZED = {  # layers of torch.nn that have parameters
    *("Linear", "Conv1d", "Conv2d", "Conv3d", "Embedding", "LayerNorm", "GroupNorm"),
    *("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "BatchNorm1d"),
    *("BatchNorm2d", "MultiheadAttention", "LSTM", "GRU", "RNN"),
}
ABSOLUTE = re.compile(
    r"(file://)?/(home|Users|root|mnt|media|content|kaggle|workspace|Volumes|tmp)/\w"
    r"|[A-Za-z]:[\\/]\w"
)
CONSOLE = "gbk"  # the encoding of a Chinese console, where a print may fail
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Seen(NamedTuple):
    """A finding, where it is, and the part of the assignment."""

    finding: Finding
    part: int
    file: str
    lines: range  # of the text that is meant, from 1


class Text(NamedTuple):
    """A file's syntax tree, and the node above each node."""

    tree: ast.Module
    parents: dict[ast.AST, ast.AST]

    def above(self, node):
        """Yield the nodes above a node, the nearest first."""
        while node := self.parents.get(node):
            yield node

    def of(self, *kinds):
        """Yield all nodes of some kinds."""
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))

    def called(self, *names):
        """Yield (call, last part of the name of what is called)."""
        for node in self.of(ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if not names or name in names:
                yield node, name


def read(path):
    """Return the Text of a file; raises SyntaxError or ValueError."""
    tree = ast.parse(path.read_bytes())
    parents = {
        child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)
    }
    return Text(tree, parents)


# Unfinished parts --------------------------------------------------------------


def missing_names(text, file):
    """Names of the kit that the module does not define."""
    defined = {n.name for n in text.of(ast.ClassDef, *FUNCTIONS)}
    defined |= {n.id for n in text.of(ast.Name) if isinstance(n.ctx, ast.Store)}
    for node in text.of(ast.Import, ast.ImportFrom):
        defined |= {alias.asname or alias.name for alias in node.names}
    missing = [n for n in NEEDED.get(file, ()) if n not in defined]
    if missing and "*" not in defined:
        yield "name_missing", None, "no " + ", ".join(missing), "the names of the kit"


def unfinished_functions(text, file):
    """Functions of the kit's files that were left empty."""
    if file not in FILES:
        return
    bases = {ast.unparse(base) for n in text.of(ast.ClassDef) for base in n.bases}
    for function in text.of(*FUNCTIONS):
        owner = text.parents[function]
        # A base class leaves a function to the classes that are made from it.
        if getattr(owner, "name", None) in bases or function.decorator_list:
            continue
        if found := left_over(function):
            yield "not_implemented", function, f"{function.name}: {found}", "its code"


def left_over(function):
    """Return what shows that a function was not written, or ""."""
    # A `raise` below `if` or `else` refuses a value; that is no blank.
    blocks = [function.body]
    while blocks:
        for node in blocks.pop():
            if isinstance(node, ast.Raise) and "NotImplemented" in ast.unparse(node):
                return "raise NotImplementedError"
            if isinstance(node, ast.For | ast.While | ast.With):
                blocks.append(node.body)
    body = function.body[ast.get_docstring(function) is not None :]
    empty = all(isinstance(n, ast.Pass) or is_ellipsis(n) for n in body)
    return "no code" if empty and function.name in BLANKS else ""


def is_ellipsis(node):
    """Return whether a statement is `...`."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and value.value is ...


# Mistakes ----------------------------------------------------------------------


def absolute_paths(text, _file):
    """R1: paths that exist on one computer only."""
    for node in text.of(ast.Constant):
        if not isinstance(node.value, str) or not ABSOLUTE.match(node.value):
            continue
        # A docstring, or the end of a longer text.
        above = text.parents[node]
        inside = isinstance(above, ast.JoinedStr) and above.values[0] is not node
        inside |= isinstance(above, ast.BinOp) and above.right is node
        if not inside and not isinstance(above, ast.Expr):
            yield "absolute_path", node, repr(node.value), "a path such as './models'"


def layers_in_forward(text, _file):
    """R22: layers with parameters, made anew in each call."""
    for call, name in text.called(*SIZED):
        owner = ast.unparse(call.func).rpartition(".")[0]
        scope = next((n for n in text.above(call) if isinstance(n, FUNCTIONS)), None)
        if owner in ("", "nn", "torch.nn") and getattr(scope, "name", "") == "forward":
            yield "layer_made_in_forward", call, f"{name} in forward", "in __init__"


def only_for_cuda(text, _file):
    """R18: a device that not every computer has, without a question for it."""
    for node in text.of(ast.Call):
        what = ast.unparse(node.func)
        words = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
        words += [
            keyword.value.value
            for keyword in node.keywords
            if keyword.arg in ("device", "device_type")
            and isinstance(keyword.value, ast.Constant)
        ]
        takes_device = what.rpartition(".")[2] in ("to", "device", "autocast")
        named = any(str(word).startswith("cuda") for word in words)
        named &= takes_device or any(k.arg == "device" for k in node.keywords)
        always = what.endswith((".cuda", "cuda.amp.autocast", "GradScaler"))
        if (named or always) and not is_asked(text, node):
            shown = ast.unparse(node)[:60]
            yield "cuda_only", node, shown, "the device that torch finds"


def is_asked(text, node):
    """Return whether a call depends on a condition, or has a switch."""
    if any(keyword.arg == "enabled" for keyword in node.keywords):
        return True
    conditions = (ast.If, ast.IfExp, ast.Try, ast.BoolOp)
    return any(isinstance(above, conditions) for above in text.above(node))


def symbols_printed(text, _file):
    """R17: characters that a console may be unable to print."""
    for call, _ in text.called("print"):
        words = "".join(
            node.value
            for node in ast.walk(call)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        bad = sorted(c for c in set(words) if not encodes(c))
        if bad:
            seen = "print of " + ", ".join(f"U+{ord(c):04X}" for c in bad[:5])
            yield "print_symbol", call, seen, "characters that every console has"


def encodes(character):
    """Return whether the console's encoding has a character."""
    try:
        character.encode(CONSOLE)
    except UnicodeEncodeError:
        return False
    return True


def slips(text, _file):
    """R21: a number unpacked to two names, or a size that is no integer."""
    for node in text.of(ast.Assign):
        several = isinstance(node.targets[0], ast.Tuple)
        if several and isinstance(node.value, ast.Constant):
            yield "number_unpacked", node, ast.unparse(node), "as many values as names"
    for call, name in text.called(*SIZED):
        for size in call.args[:3]:
            # int() and the like make an integer of it.
            whole = isinstance(size, ast.Call)
            nodes = () if whole else ast.walk(size)
            if any(isinstance(n, ast.BinOp) and is_division(n) for n in nodes):
                yield "float_size", call, f"{name}: {ast.unparse(size)}", "// in a size"
                break


def is_division(node):
    """Return whether an operation is a division that gives a float."""
    return isinstance(node.op, ast.Div)


RULES = (missing_names, unfinished_functions, absolute_paths, layers_in_forward)
RULES += (only_for_cuda, symbols_printed, slips)

# The pass ----------------------------------------------------------------------


def static_findings(folder) -> list[Seen]:
    """Return all that the texts below a folder show, in the order of the files."""
    seen = [
        Seen(Finding("file_missing", f"no {file}", "the file"), FILES[file], file, NONE)
        for file in NEEDED
        if not (folder / file).is_file()
    ]
    for path in sorted(Path(folder).rglob("*.py")):
        file = path.relative_to(folder).as_posix()
        if not file.startswith("tests/"):  # tests hold mistakes on purpose
            seen += file_findings(path, file)
    return seen


NONE = range(0)


def file_findings(path, file) -> Iterator[Seen]:
    """Yield what one file shows; findings of one name in a file are one."""
    part = FILES.get(file, GENERAL)
    try:
        text = read(path)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        seen = f"{getattr(error, 'msg', error)} at {file}:{line}"
        finding = Finding("syntax_error", seen, "a file that Python reads")
        yield Seen(finding, part, file, range(line, line + 1))
        return
    rows = [row for rule in RULES for row in rule(text, file)]
    for name in dict.fromkeys(row[0] for row in rows):
        same = [row for row in rows if row[0] == name]
        _, node, seen, expected = same[0]
        lines = range(node.lineno, node.end_lineno + 1) if node else NONE
        seen += f" at {file}:{node.lineno}" if node else f" in {file}"
        if len(same) > 1:
            seen += f", and {len(same) - 1} more"
        yield Seen(Finding(name, seen, expected), part, file, lines)


def unfinished_modules(seen):
    """Return {"utils.train", ...}: the modules whose checks would say nothing new."""
    names = (s.file for s in seen if s.finding.name in UNFINISHED)
    return {name.removesuffix(".py").replace("/", ".") for name in names}


# Evidence for the bonus --------------------------------------------------------


def bonus_evidence(folder) -> dict[str, str]:
    """Return what a teacher may look at for the bonus (M44, M50)."""
    # Names tell that labels or another paradigm are there, not that they work.
    found, path = {}, folder / "diffusion.py"
    try:
        text = read(path)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    words = {n.arg.lower() for n in text.of(ast.arg)}
    words |= {n.id.lower() for n in text.of(ast.Name)}
    if labels := sorted(w for w in words if re.search("label|class|species", w)):
        found["labels"] = ", ".join(labels[:4])
    spelled = re.sub(r"\W+", " ", path.read_text("utf-8", "replace").lower())
    pattern = r"flow matching|rectified flow|velocity|consistency|v prediction"
    if paradigm := sorted(set(re.findall(pattern, spelled))):
        found["paradigm"] = ", ".join(paradigm)
    for report in sorted(folder.glob("diffusion_report*")):
        found["report"] = report.name
        shown = report.read_text("utf-8", "replace") if report.suffix == ".md" else ""
        if pictures := len(re.findall(r"!\[|<img", shown)):
            found["report"] += f" ({pictures} pictures)"
    return found
