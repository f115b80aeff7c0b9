"""Settings with names in braces, such as a topic or an address, and the values that take their place."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from edgefn.errors import ConfigError

_NAME = re.compile(r"\{([^{}]*)\}")


def check_template(key: str, text: str, names: Collection[str]) -> str:
    """The text with an `x` for each name. Raises ConfigError for a name that is not among `names`, and for a lone brace."""
    for name in _NAME.findall(text):
        if name not in names:
            raise ConfigError(f"{key} = {text!r}: {{{name}}} is not known; use {{{'}, {'.join(names)}}}")
    bare = _NAME.sub("x", text)
    if "{" in bare or "}" in bare:
        raise ConfigError(f"{key} = {text!r}: a brace without its partner")
    return bare


def fill(text: str, values: Mapping[str, str]) -> str:
    return _NAME.sub(lambda match: values[match[1]], text)
