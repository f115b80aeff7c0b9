"""What several verbs need: where the settings are, and how they are told to people."""

from __future__ import annotations

from pathlib import Path

import click

from edgefn import config
from edgefn.config import Config

BAD_INPUT = 1
CANNOT_RUN = 2
STORE_DAMAGED = 3  # `edgefn run`: start it again, and it takes over what can be read


def find_settings(where: Path | None) -> Path | None:
    """The settings file of a folder or of this one; None where there is none and none was asked for."""
    if where is None:
        here = Path(config.FILE)
        return here.resolve() if here.is_file() else None
    return (where / config.FILE if where.is_dir() else where).resolve()


def load(where: Path | None) -> Config:
    """Reads the settings and tells the warnings. Raises ConfigError."""
    settings = config.load(find_settings(where))
    for warning in settings.warnings:
        click.echo(f"edgefn: warning: {warning}", err=True)
    return settings
