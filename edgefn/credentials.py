"""Secrets that stand in files of their own: passwords and tokens, one a file."""

from __future__ import annotations

import os
from pathlib import Path


def find_secret(path: Path) -> Path:
    """Where the file is: in the folder in which systemd hands credentials over, by its name, or else where it says."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    handed_over = Path(credentials) / path.name if credentials else path
    return handed_over if handed_over.is_file() else path


def read_secret(path: Path) -> str:
    """The secret without the line's end. Raises OSError, and ValueError for an empty file or one of several lines."""
    secret = find_secret(path).read_text(encoding="utf-8").rstrip("\r\n")
    if not secret:
        raise ValueError("it is empty")
    if not secret.isprintable():
        raise ValueError("it has more than one line, or control characters")
    return secret
