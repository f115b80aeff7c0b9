"""What can be said about a handler file from its syntax tree alone, before numba is asked: faster, and by the line.

Numba names no line for a field of the state that does not exist, and its messages speak of types where the author
needs to read what to write instead.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from edgefn.api import Handler
from edgefn.errors import Finding

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


class Functions:
    """The functions of a file by name, and which of them a handler reaches."""

    def __init__(self, source: str, file: str) -> None:
        self.file = file
        self.tree = ast.parse(source, file)
        self.by_name = {node.name: node for node in self.tree.body if isinstance(node, ast.FunctionDef)}

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


def check(functions: Functions, handlers: list[Handler], namespace: dict[str, Any]) -> list[Finding]:
    """Everything wrong that the tree can tell, sorted by line."""
    findings: list[Finding] = []
    known = set(namespace) | set(dir(builtins))
    for name in functions.reached(handlers):
        node = functions.by_name[name]
        findings += [
            Finding(functions.file, line, f"{name}: {message}", hint) for line, message, hint in _walk(node, known)
        ]
    for handler in handlers:
        if handler.state is not None and handler.function is not None:
            tree = functions.by_name.get(handler.function.__name__)
            if tree is not None:
                findings += _state_fields(functions.file, handler, tree)
    return sorted(set(findings), key=lambda finding: finding.line)


def _walk(function: ast.FunctionDef, known: set[str]) -> Iterator[tuple[int, str, str]]:
    arguments = function.args
    local = {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs, *arguments.posonlyargs)}
    nodes = [node for statement in function.body for node in ast.walk(statement)]
    local |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in nodes:
        line = getattr(node, "lineno", function.lineno)
        if type(node) in _CONSTRUCTS:
            what, hint = _CONSTRUCTS[type(node)]
            yield line, f"{what} cannot be compiled", hint
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
            if node.func.id not in local:
                yield line, f"{node.func.id}() cannot be compiled", _CALLS[node.func.id]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in known | local:
            hint = _closest(node.id, known | local)
            yield line, f"the name {node.id!r} is not defined", hint


def _closest(name: str, known: Iterable[str]) -> str:
    import difflib

    match = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {match[0]}?" if match else "define or import it above"


def _state_fields(file: str, handler: Handler, function: ast.FunctionDef) -> Iterator[Finding]:
    assert handler.state is not None
    try:
        sample = handler.state()
    except TypeError as error:
        yield Finding(
            file, handler.line, f"{handler.name}: state {handler.state.__name__}: {error}", "give every field a default"
        )
        return
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
