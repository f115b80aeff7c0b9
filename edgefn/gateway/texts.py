"""Which text runs of a handler file: its own, or a version that an operator has gone back to; or why none does."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from edgefn import loader
from edgefn.errors import Finding
from edgefn.gateway import file_checks
from edgefn.gateway.versions import Versions, content_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Text:
    """A version of a file."""

    source: Path  # where it stands
    data: bytes
    content: str
    of_file: str  # the content of the file itself

    @property
    def is_rolled_back(self) -> bool:
        return self.content != self.of_file


def text_of(path: Path, owners: frozenset[int], versions: Versions) -> Text | Finding:
    """Reads it. What cannot be read, or may not be run, is a finding."""
    if finding := file_checks.refusal(path, owners):
        return finding
    try:
        data = loader.plain(path.read_bytes())
        content = content_of(data)
        versions.see(path.stem, content)
        version = versions.wanted(path.stem, content)
        if version is None:
            return Text(path, data, content, content)
        if source := versions.source(path.stem, version):
            kept = source.read_bytes()
            return Text(source, kept, content_of(kept), content)
    except OSError as error:
        return Finding(str(path), 0, f"cannot be read: {error.strerror}", "was it renamed or removed meanwhile?")
    log.error("%s: version %s, which was gone back to, is not there any more; the file runs", path.name, version)
    versions.forget_rollback(path.stem)
    return Text(path, data, content, content)
