"""From an exception of numba's compiler to a finding: the author's line, what is wrong, and what to write instead."""

from __future__ import annotations

import re
from pathlib import Path

from edgefn.errors import Finding

_HINTS = (
    (r"Unknown attribute '(\w+)' of type (module|Module)", "compiled handlers know numpy, math and edgefn.kernels"),
    (r"Unknown attribute|has no attribute", "check the spelling; arrays have mean(), max(), min(), sum(), std(), size"),
    (r"No implementation of function|Invalid use of", "compiled handlers take and give numbers and arrays of numbers"),
    (r"unicode_type|Literal\[str\]", "compiled handlers take and give numbers; texts belong where they are shown"),
    (r"Can(not|'t) unify", "let every branch return the same kind of number, 0.0 rather than None"),
    (r"none|NoneType", "let every path return a number"),
    (r"reflected list|list\(", "use a numpy array: np.zeros(n)"),
    (r"not a record|Record|readonly", "change the fields of state one by one: state.mean = …"),
)
_LOOP = re.compile(r"def _edgefn_(\w+)\(n, ")
_RETURNED = re.compile(r"setitem\(array\(float64, \dd, C\), (?:Tuple\(Literal\[int\]\(\d+\), int64\)|int64), (.+)\)")
_LOCATION = re.compile(r'File "([^"]+)", line (\d+)')


def explain(error: BaseException, file: str, module: Path, source: str) -> Finding:
    """Works for any exception raised while the generated module is imported or tested."""
    text = str(error) or type(error).__name__
    lines = source.count("\n") + 1
    places = [
        int(line) for name, line in _LOCATION.findall(text) if Path(name).name == module.name and int(line) <= lines
    ]
    message = _message(text)
    # Of returns that do not fit together numba lists all, in no order; of anything else the place comes last.
    line = (min(places) if "unify return" in message else places[-1]) if places else _raised_at(error, module, lines)
    if not line and (calls := _LOOP.search(text)):
        # The complaint is about the loop around the handler: about what the handler returns.
        line = next((n for n, code in enumerate(source.splitlines(), 1) if code.startswith(f"def {calls[1]}(")), 0)
        returned = _RETURNED.search(text)
        return Finding(
            file,
            line,
            f"{calls[1]}: it returns {_shown(returned[1])}" if returned else f"{calls[1]}: {message}",
            "return one number, or several as a NamedTuple that the function is annotated with",
        )
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, text)), "")
    return Finding(
        file,
        line,
        message if places or "numba" in type(error).__module__ else f"{type(error).__name__}: {message}",
        hint,
    )


def _shown(numba_type: str) -> str:
    """A type of numba's in the author's words."""
    for sign, words in (("str", "a text"), ("uple", "a tuple"), ("array", "an array"), ("none", "nothing")):
        if sign in numba_type:
            return words
    return f"a {numba_type}"


def _raised_at(error: BaseException, module: Path, lines: int) -> int:
    found, trace = 0, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == module.name and trace.tb_lineno <= lines:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def _message(text: str) -> str:
    """The one line that says what is wrong, out of numba's forty."""
    for pattern in (
        r"Unknown attribute .*",
        r"Cannot unify .*",
        r"No implementation of function Function\((.+?)\) found for signature:\s+>>> (.+)",
        r"Untyped global name .*",
        r"Use of unsupported .*",
        r"The use of .* is not supported.*",
    ):
        if match := re.search(pattern, text):
            return " ".join(match.groups()) + " has no compiled form" if match.groups() else match[0].strip()
    parts = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Failed in")]
    return parts[0] if parts else text
