"""From a handler file to one self-contained module: the author's source as it is, then a loop for each handler.

The source stays on its lines, so that every error and traceback names the line the author knows. Loops have explicit
signatures; the module's name is the hash of all that is compiled into it, so that its cache can never be stale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from edgefn.api import Handler
from edgefn.fields import Field

PREFIX = "_edgefn_"


def module_source(source: str, handlers: Iterable[Handler], functions: Iterable[str]) -> str:
    """The text of the generated module. `functions` names those of the file that run compiled: handlers and helpers."""
    compiled = [handler for handler in handlers if handler.function is not None]
    lines = [
        source.rstrip("\n"),
        "",
        "# Below: made by edgefn, one loop for each handler.",
        f"from edgefn.engine import compiled as {PREFIX}c",
        f"import numpy as {PREFIX}np",
        f"{PREFIX}library = {PREFIX}c.library(__file__)",
    ]
    lines += [f"{name} = {PREFIX}c.inline({name}, {PREFIX}library)" for name in functions]
    for handler in compiled:
        lines += _loop(handler)
    lines.append(f"{PREFIX}LOOPS = {{")
    lines += [
        f"    {handler.name!r}: ({_id(handler)}, {_id(handler)}_dtype, {_id(handler)}_init)," for handler in compiled
    ]
    lines += ["}", ""]
    return "\n".join(lines)


def _id(handler: Handler) -> str:
    assert handler.function is not None
    return f"{PREFIX}{handler.function.__name__}"


def _loop(handler: Handler) -> list[str]:
    name, c = _id(handler), f"{PREFIX}c"
    assert handler.function is not None
    function = handler.function.__name__
    if handler.state is not None:
        state = handler.state.__name__
        head = [f"{name}_dtype = {c}.state_dtype({state})", f"{name}_init = {c}.initial_state({state}, {name}_dtype)"]
    else:
        head = [f"{name}_dtype = None", f"{name}_init = None"]
    write: Callable[[Handler], list[str]] = {
        "filter": _filter,
        "transform": _transform,
        "anomaly": _anomaly,
        "aggregate": _aggregate,
    }[handler.kind]
    return [
        "",
        *head,
        # A loop calls it by a name of its own: the author may call a handler `row` or `n`.
        f"{name}_call = {function}",
        f"@{c}.loop({handler.kind!r}, {name}_dtype, {PREFIX}library)",
        *write(handler),
    ]


def _scalar(field: Field, column: str) -> str:
    return {"float": column, "int": f"{PREFIX}np.int64({column})", "bool": f"{column} != 0.0"}[field.type]


def _default(field: Field) -> str:
    assert field.default is not None
    if not math.isfinite(field.default):  # repr writes a name that is not defined
        return {"nan": f"{PREFIX}np.nan", "inf": f"{PREFIX}np.inf", "-inf": f"-{PREFIX}np.inf"}[str(field.default)]
    return repr({"float": float, "int": int, "bool": bool}[field.type](field.default))


def _arguments(handler: Handler) -> str:
    """The call's arguments for row j, in the author's order."""
    order = {field.name: number for number, field in enumerate(handler.inputs)}
    arguments = []
    for name in handler.parameters:
        if name in order:
            number = order[name]
            field = handler.inputs[number]
            value = _scalar(field, f"columns[idx[{number}], j]")
            if field.default is not None:
                value = f"({value} if (present[j] >> idx[{number}]) & 1 else {_default(field)})"
        else:
            value = {"ts": "ts[j]", "key": f"{PREFIX}np.int64(key[j])", "state": "state[key[j]]"}[name]
        arguments.append(value)
    return ", ".join(arguments)


def _rows(handler: Handler, outputs: str, before: list[str], work: list[str], after: list[str]) -> list[str]:
    """A loop over the selected rows in which one event that raises costs that event and nothing else."""
    return [
        f"def {_id(handler)}(n, sel, ts, key, present, columns, idx, need, state, {outputs}, counts):",
        "    m = 0",
        "    for i in range(n):",
        "        j = sel[i]",
        *(f"        {line}" for line in before),
        "        if present[j] & need != need:",
        "            counts[0] += 1",
        "            continue",
        "        raised = True",
        "        try:",
        *(f"            {line}" for line in work),
        "            raised = False",
        "        except Exception:",
        "            counts[1] += 1",
        "        if raised:",
        "            if counts[2] < 0:",
        "                counts[2] = j",
        "            continue",
        *(f"        {line}" for line in after),
    ]


def _filter(handler: Handler) -> list[str]:
    work = [f"keep = bool({_id(handler)}_call({_arguments(handler)}))"]
    after = ["if keep:", "    out_sel[m] = j", "    m += 1"]
    return [*_rows(handler, "out_sel", ["keep = False"], work, after), "    return m"]


def _unpack(handler: Handler, target: str) -> list[str]:
    if len(handler.outputs) == 1 and not _is_row(handler):
        return [f"{target.format(0)} = row"]
    return [f"{target.format(number)} = row[{number}]" for number in range(len(handler.outputs))]


def _is_row(handler: Handler) -> bool:
    """Whether the function returns a NamedTuple, also where that has a single value."""
    return handler.outputs[0].name != "value" or len(handler.outputs) > 1


def _transform(handler: Handler) -> list[str]:
    work = [f"row = {_id(handler)}_call({_arguments(handler)})", *_unpack(handler, "out[{}, m]")]
    return [*_rows(handler, "out, out_row", [], work, ["out_row[m] = j", "m += 1"]), "    return m"]


def _anomaly(handler: Handler) -> list[str]:
    work = [f"score[i] = {_id(handler)}_call({_arguments(handler)})"]
    return _rows(handler, "score", [f"score[i] = {PREFIX}np.nan"], work, [])


def _aggregate(handler: Handler) -> list[str]:
    order = {field.name: number for number, field in enumerate(handler.inputs)}
    reserved = {"ts": "ts[a:b]", "key": f"{PREFIX}np.int64(key[i])", "state": "state[key[i]]"}
    arguments = ", ".join(
        f"columns[{order[name]}, a:b]" if name in order else reserved[name] for name in handler.parameters
    )
    return [
        f"def {_id(handler)}(n, offset, length, key, end, ts, columns, state, out, ok, counts):",
        "    for i in range(n):",
        "        a = offset[i]",
        "        b = a + length[i]",
        "        ok[i] = 0",
        "        try:",
        f"            row = {_id(handler)}_call({arguments})",
        *(f"            {line}" for line in _unpack(handler, "out[{}, i]")),
        "            ok[i] = 1",
        "        except Exception:",
        "            counts[1] += 1",
        "        if ok[i] == 0 and counts[2] < 0:",
        "            counts[2] = i",
    ]
