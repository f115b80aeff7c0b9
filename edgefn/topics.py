"""MQTT topics and the patterns that handlers listen to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from edgefn.errors import TopicError

MAX_TOPIC_BYTES = 1024  # MQTT allows 65,535; nobody's sensor needs them, and each known topic costs memory
MAX_LEVELS = 64

_CAPTURE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _check_length(text: str, what: str) -> None:
    if not text:
        raise TopicError(f"an empty {what}")
    if "\0" in text:
        raise TopicError(f"{what} {text[:40]!r} contains a NUL character")
    if len(text.encode()) > MAX_TOPIC_BYTES:
        raise TopicError(f"{what} {text[:40]!r}… is longer than {MAX_TOPIC_BYTES} bytes")
    if text.count("/") >= MAX_LEVELS:
        raise TopicError(f"{what} {text[:40]!r}… has more than {MAX_LEVELS} levels")


def check_topic(topic: str) -> str:
    """Returns a concrete topic unchanged; raises TopicError where a message cannot be published to it."""
    _check_length(topic, "topic")
    if "+" in topic or "#" in topic:
        raise TopicError(f"topic {topic[:40]!r} contains a wildcard; a message goes to one topic")
    return topic


def topic_of(data: bytes) -> str:
    """The topic of a message that has come; raises TopicError where it is none."""
    try:
        return check_topic(data.decode())
    except UnicodeDecodeError as error:
        raise TopicError(f"a topic that is not UTF-8: {error}") from error


def shown(data: bytes) -> str:
    """A topic as it can stand in a log, whatever was sent: one line, a name and not an essay."""
    text = data[:200].decode(errors="replace")
    return "".join(one if one.isprintable() else "\ufffd" for one in text) or "(no topic)"


def level(text: str) -> str:
    """Makes any text fit to be one level of a topic: `a/b+c` becomes `a_b_c`, nothing becomes `_`."""
    return re.sub(r"[/+#\0]", "_", text) or "_"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A topic pattern: MQTT's `+` and `#`, and `{name}` for a `+` whose value is kept.

    Pattern("sensors/{room}/climate").match("sensors/attic/climate") == ("attic",)

    `$share/group/` in front makes it a shared subscription (MQTT 5, 4.8.2): of all sessions of the group, one gets each message.
    """

    text: str
    filter: str = field(init=False)  # what is subscribed to
    captures: tuple[str, ...] = field(init=False)
    _levels: tuple[str, ...] = field(init=False, repr=False)
    _captured: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_length(self.text, "pattern")
        levels, captures, captured = [], [], []
        group, text = split_share(self.text)
        if group is not None and (not group or not text or set("+#{}") & set(group)):
            raise TopicError(
                f"pattern {self.text!r}: a shared one is $share/GROUP/PATTERN, and a group has no wildcard"
            )
        for index, part in enumerate(text.split("/")):
            if match := _CAPTURE.fullmatch(part):
                captures.append(match[1])
                captured.append(index)
                part = "+"
            elif "{" in part or "}" in part:
                raise TopicError(f"pattern {self.text!r}: a capture is a whole level, such as sensors/{{room}}/climate")
            elif part not in ("+", "#") and ("+" in part or "#" in part):
                raise TopicError(f"pattern {self.text!r}: a wildcard is a whole level, not a part of {part!r}")
            levels.append(part)
        if "#" in levels[:-1]:
            raise TopicError(f"pattern {self.text!r}: # can only be the last level")
        if len(set(captures)) < len(captures):
            raise TopicError(f"pattern {self.text!r}: each capture needs a name of its own")
        for name, value in (
            ("filter", "/".join(levels) if group is None else f"$share/{group}/{'/'.join(levels)}"),
            ("captures", tuple(captures)),
            ("_levels", tuple(levels)),
            ("_captured", tuple(captured)),
        ):
            object.__setattr__(self, name, value)

    def match(self, topic: str) -> tuple[str, ...] | None:
        """The captured values where the topic matches (an empty tuple where there are none), else None."""
        have, want = topic.split("/"), self._levels
        if have[0].startswith("$") and want[0] in ("+", "#"):
            return None  # MQTT 3.1.1, 4.7.2: a wildcard at the start does not match $SYS and its like
        if want[-1] == "#":
            # 4.7.1.2: `a/#` also matches `a` itself
            if len(have) < len(want) - 1:
                return None
            want = want[:-1]
        elif len(have) != len(want):
            return None
        for mine, theirs in zip(want, have, strict=False):
            if mine not in ("+", theirs):
                return None
        return tuple(have[index] for index in self._captured)


def split_share(text: str) -> tuple[str | None, str]:
    """The group of a shared filter, None where it is none, and the filter without it."""
    if not text.startswith("$share/"):
        return None, text
    group, _, rest = text.removeprefix("$share/").partition("/")
    return group, rest


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that the filter `narrow` matches is matched by `wide` too."""
    wides, narrows = wide.split("/"), narrow.split("/")
    if narrow.startswith("$") and wides[0] in ("+", "#"):
        return False  # as in Pattern.match
    for index, level in enumerate(wides):
        if level == "#":
            return True
        if index >= len(narrows) or narrows[index] == "#" or (level != "+" and level != narrows[index]):
            return False
    return len(wides) == len(narrows)
