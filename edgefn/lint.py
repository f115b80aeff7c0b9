"""What can be said about a handler file from its syntax tree alone, before numba is asked: faster, and by the line.

Numba names no line for a field of the state that does not exist, and its messages speak of types where the author
needs to read what to write instead.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import edgefn
from edgefn.api import Handler
from edgefn.errors import Finding
from edgefn.manifest import MAX_COLUMNS

_PYTHON = "such work belongs in a Python program that subscribes to what this handler puts out"
_CONSTRUCTS: dict[type[ast.AST], tuple[str, str]] = {
    ast.JoinedStr: ("an f-string", "return numbers; texts are made where they are shown"),
    ast.Dict: ("a dict", "return a NamedTuple, or keep values in the state's fields"),
    ast.DictComp: ("a dict", "keep values in the state's fields or in a numpy array"),
    ast.Set: ("a set", "compare with == and `or`, or use a numpy array"),
    ast.SetComp: ("a set", "use a numpy array"),
    ast.Lambda: ("a lambda", "write a helper function with `def` at the top of the file"),
    ast.With: ("a `with` block", _PYTHON),
    ast.AsyncWith: ("an `async with` block", _PYTHON),
    ast.Await: ("`await`", _PYTHON),
    ast.Yield: ("`yield`", "return one value for each event"),
    ast.YieldFrom: ("`yield from`", "return one value for each event"),
    ast.Import: ("an import inside a function", "import at the top of the file"),
    ast.ImportFrom: ("an import inside a function", "import at the top of the file"),
    ast.Global: ("`global`", "keep what changes in the handler's state"),
    ast.Nonlocal: ("`nonlocal`", "keep what changes in the handler's state"),
    ast.ClassDef: ("a class inside a function", "define it at the top of the file"),
    ast.FunctionDef: ("a function inside a function", "define it at the top of the file"),
    ast.Delete: ("`del`", "leave it away"),
}
_CALLS = {
    "print": 'put the number into the result; a topic shows it: to="debug/…"',
    "open": _PYTHON,
    "input": _PYTHON,
    "eval": "write the expression itself",
    "exec": "write the code itself",
    "getattr": "write the attribute itself",
    "setattr": "write the attribute itself",
    "str": "return numbers",
    "dict": "return a NamedTuple, or keep values in the state's fields",
    "set": "use a numpy array",
}

_CALLED = {
    "filter": '@filter("sensors/{room}/climate")',
    "transform": '@transform("sensors/{room}/climate")',
    "on": '@on("sensors/{room}/motion")',
    "every": '@every("5m")',
    "watch": '@watch("/data/*.csv")',
    "system": '@system("start")',
}


class Functions:
    """The functions of a file by name, and which of them a handler reaches."""

    def __init__(self, source: str, file: str) -> None:
        self.file = file
        self.tree = ast.parse(source, file)
        defined = [node for node in self.tree.body if isinstance(node, ast.FunctionDef)]
        self.by_name = {node.name: node for node in defined}
        everything = [node for node in self.tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        last = {node.name: node for node in everything}
        self.replaced = [
            (node, last[node.name]) for node in everything if last[node.name] is not node and node.decorator_list
        ]

    def reached(self, handlers: Iterable[Handler]) -> list[str]:
        """Names of the functions that run compiled: those of the handlers and the helpers that they call."""
        todo = [handler.function.__name__ for handler in handlers if handler.function is not None]
        seen: dict[str, None] = {}
        while todo:
            name = todo.pop()
            if name in seen or name not in self.by_name:
                continue
            seen[name] = None
            todo += [node.id for node in ast.walk(self.by_name[name]) if isinstance(node, ast.Name)]
        return [name for name in self.by_name if name in seen]


def without_arguments(functions: Functions, namespace: Mapping[str, Any]) -> list[Finding]:
    """Decorators that were forgotten to be called: they leave something that is no handler, and say nothing."""
    return [
        Finding(
            functions.file,
            node.lineno,
            f"{node.name}: @{one.id} has no arguments",
            f"write what it needs: {_CALLED[one.id]}",
        )
        for node in functions.tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for one in node.decorator_list
        if isinstance(one, ast.Name) and one.id in _CALLED and namespace.get(one.id) is getattr(edgefn, one.id)
    ]


def wrong_fields(functions: Functions) -> list[Finding]:
    """Each `field` that is the other one: dataclasses have one for states, edgefn one for payloads.

    Found before the file is run, which would end at it without a word about the two.
    """
    imported = {
        alias.asname or alias.name: node.module
        for node in functions.tree.body
        if isinstance(node, ast.ImportFrom) and node.module in ("dataclasses", "edgefn")
        for alias in node.names
        if alias.name == "field"
    }

    def is_of(module: str, node: ast.expr | None) -> bool:
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and imported.get(node.func.id) == module

    findings = []
    for function in functions.by_name.values():
        positional = [*function.args.posonlyargs, *function.args.args]
        defaults = function.args.defaults
        pairs = [*zip(positional[len(positional) - len(defaults) :], defaults, strict=True)]
        for argument, default in (*pairs, *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)):
            if is_of("dataclasses", default):
                message = f"{function.name}: parameter {argument.arg}: this field is the one of dataclasses"
                hint = "import edgefn's: `from edgefn import field`; for states, `import dataclasses` and `dataclasses.field(…)`"
                findings.append(Finding(functions.file, argument.lineno, message, hint))
    for state in (node for node in functions.tree.body if isinstance(node, ast.ClassDef)):
        for one in state.body:
            if isinstance(one, ast.AnnAssign) and is_of("edgefn", one.value):
                message = f"{state.name}.{ast.unparse(one.target)}: this field is edgefn's, which is for parameters"
                hint = "for states, `import dataclasses` and `dataclasses.field(…)`"
                findings.append(Finding(functions.file, one.lineno, message, hint))
    return findings


def check(functions: Functions, handlers: list[Handler], namespace: dict[str, Any]) -> list[Finding]:
    """Everything wrong that the tree can tell, sorted by line."""
    findings: list[Finding] = []
    known = set(namespace) | set(dir(builtins))
    for name in functions.reached(handlers):
        node = functions.by_name[name]
        findings += [
            Finding(functions.file, line, f"{name}: {message}", hint) for line, message, hint in _walk(node, known)
        ]
    for first, later in functions.replaced:
        message = f"{first.name}: a function of this name on line {later.lineno} takes its place"
        findings.append(Finding(functions.file, first.lineno, message, "rename one of them"))
    for handler in handlers:
        if handler.function is None:
            continue
        tree = functions.by_name.get(handler.function.__name__)
        if tree is None:
            message = f"{handler.name}: it does not stand at the top level of the file"
            findings.append(
                Finding(functions.file, handler.line, message, "move it out of the `if`, class or function")
            )
            continue
        findings += _returns(functions.file, handler, tree)
        if handler.state is not None:
            findings += _state_fields(functions, handler, tree)
    findings += _sources(functions.file, handlers)
    return sorted(dict.fromkeys(findings), key=lambda finding: finding.line)


def _walk(function: ast.FunctionDef, known: set[str]) -> Iterator[tuple[int, str, str]]:
    arguments = function.args
    local = {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs, *arguments.posonlyargs)}
    nodes = [node for statement in function.body for node in ast.walk(statement)]
    local |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    local |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    local |= {node.arg for node in nodes if isinstance(node, ast.arg)}  # of a lambda
    for node in nodes:
        line = getattr(node, "lineno", function.lineno)
        if type(node) in _CONSTRUCTS:
            what, hint = _CONSTRUCTS[type(node)]
            yield line, f"{what} cannot be compiled", hint
        elif isinstance(node, ast.Compare) and any(_is_text(side) for side in (node.left, *node.comparators)):
            yield (
                line,
                "a text cannot be compared",
                "handlers get numbers and booleans; let the device send one of these",
            )
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
            if node.func.id not in local:
                yield line, f"{node.func.id}() cannot be compiled", _CALLS[node.func.id]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in known | local:
            hint = _closest(node.id, known | local)
            yield line, f"the name {node.id!r} is not defined", hint


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _closest(name: str, known: Iterable[str], otherwise: str = "define or import it above") -> str:
    import difflib

    match = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {match[0]}?" if match else otherwise


def _returns(file: str, handler: Handler, function: ast.FunctionDef) -> Iterator[Finding]:
    values = [node for node in ast.walk(function) if isinstance(node, ast.Return) and node.value is not None]
    if not values:
        yield Finding(file, handler.line, f"{handler.name}: it returns nothing", "end it with `return` and a value")
    elif handler.kind != "filter" and not _ends(function.body):  # a filter that returns nothing drops the event
        message = f"{handler.name}: not every way through it returns a value"
        yield Finding(
            file, handler.line, message, "end it with `return` and a number; math.nan says that there is none"
        )


def _ends(body: list[ast.stmt]) -> bool:
    """Whether no way leads past the last of these statements."""
    last = body[-1]
    if isinstance(last, ast.If):
        return bool(last.orelse) and _ends(last.body) and _ends(last.orelse)
    if isinstance(last, ast.Try):
        return _ends(last.orelse or last.body) and all(_ends(handler.body) for handler in last.handlers)
    if isinstance(last, ast.While):
        return isinstance(last.test, ast.Constant) and bool(last.test.value)
    return isinstance(last, ast.Return | ast.Raise)


def _sources(file: str, handlers: list[Handler]) -> Iterator[Finding]:
    """Handlers whose source is lost, or does not put out what they take."""
    by_name = {handler.name: handler for handler in handlers}
    columns: dict[str, set[str]] = {}  # of the table of each pattern
    for handler in handlers:
        above, seen, maker = handler, {handler.name}, None
        while isinstance(above.source, str):
            parent = by_name.get(above.source)
            if parent is None or parent.name in seen:
                if above is handler:
                    message = f"{handler.name}: its source {above.source} is replaced by something else of that name"
                    yield Finding(file, handler.line, message, "rename one of them")
                break
            above = parent
            seen.add(above.name)
            if maker is None and above.kind != "filter":
                maker = above
        if maker is not None:
            made = [field.name for field in maker.outputs]
            for field in handler.inputs:
                if field.latest is not None:
                    message = f"{handler.name}: {field.name} is a latest(), which only handlers on topics and their filters read"
                    yield Finding(file, handler.line, message, f"read it in {maker.name} and put it out from there")
                elif field.column not in made:
                    message = (
                        f"{handler.name}: its source {maker.name} puts out {', '.join(made)}, and no {field.column}"
                    )
                    yield Finding(
                        file, handler.line, message, _closest(field.column, made, f"take it from {maker.name}")
                    )
        elif not isinstance(above.source, str):
            taken = columns.setdefault(above.source.text, set())
            taken |= {field.column for field in handler.inputs}
            if len(taken) > MAX_COLUMNS >= len(handler.inputs):
                message = f"{handler.name}: with it {len(taken)} fields of {above.source.text} are taken"
                yield Finding(file, handler.line, message, f"{MAX_COLUMNS} are possible; publish to several topics")
        for what, names in (("takes", handler.inputs), ("puts out", handler.outputs)):
            if len(names) > MAX_COLUMNS:
                message = f"{handler.name}: it {what} {len(names)} fields; {MAX_COLUMNS} are possible"
                yield Finding(file, handler.line, message, "make several handlers of it")


def _holds(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Fields of a state that cannot be kept in a row, with the name of their type."""
    import numpy as np

    for entry in fields(value):
        part, where = getattr(value, entry.name), f"{path}.{entry.name}"
        if is_dataclass(part):
            yield from _holds(part, where)
        elif isinstance(part, np.ndarray) and part.dtype.kind in "fiub" and part.size:
            continue
        elif not isinstance(part, (int, float)):
            yield where, type(part).__name__


def _state_fields(functions: Functions, handler: Handler, function: ast.FunctionDef) -> Iterator[Finding]:
    assert handler.state is not None
    file = functions.file
    try:
        sample = handler.state()
    except TypeError as error:
        yield Finding(
            file, handler.line, f"{handler.name}: state {handler.state.__name__}: {error}", "give every field a default"
        )
        return
    for where, kind in _holds(sample, handler.state.__name__):
        yield Finding(
            file,
            handler.line,
            f"{handler.name}: {where} holds a {kind}, which state cannot keep",
            "state holds float, int, bool, numpy arrays of fixed length, and dataclasses of these",
        )
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute):
            path = _path(node)
            if path and path[0] == "state":
                value = sample
                for depth, part in enumerate(path[1:], 1):
                    if not is_dataclass(value):
                        break
                    names = [entry.name for entry in fields(value)]
                    if part not in names:
                        shown = ".".join(path[: depth + 1])
                        yield Finding(
                            file,
                            node.lineno,
                            f"{handler.name}: {shown} does not exist; {type(value).__name__} has {', '.join(names)}",
                            _closest(part, names),
                        )
                        break
                    value = getattr(value, part)


def _path(node: ast.expr) -> list[str]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []
