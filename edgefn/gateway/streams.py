"""The operator's word on streams: what the [[stream]] tables of the settings change in the options of handlers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

import msgspec

from edgefn.api import can_thin
from edgefn.config import StreamSettings
from edgefn.manifest import FunctionManifest, HandlerManifest, Manifest
from edgefn.options import PRIORITIES, Options

Either = TypeVar("Either", HandlerManifest, FunctionManifest)


def overridden(manifest: Manifest, settings: Sequence[StreamSettings]) -> Manifest:
    """The manifest with the options that hold on this gateway. The first table that matches a stream is the one."""
    return msgspec.structs.replace(
        manifest,
        handlers=tuple(_told(handler, settings) for handler in manifest.handlers),
        functions=tuple(_told(function, settings) for function in manifest.functions),
    )


def _told(handler: Either, settings: Sequence[StreamSettings]) -> Either:
    wanted = _first(handler, settings)
    return handler if wanted is None else msgspec.structs.replace(handler, options=_options(handler.options, wanted))


def _first(handler: HandlerManifest | FunctionManifest, settings: Sequence[StreamSettings]) -> StreamSettings | None:
    return next((one for one in settings if handler.stream and fnmatchcase(handler.stream, one.match)), None)


def _options(options: Options, wanted: StreamSettings) -> Options:
    return dataclasses.replace(
        options,
        priority=options.priority if wanted.priority is None else PRIORITIES[wanted.priority],
        ttl=options.ttl if wanted.ttl is None else wanted.ttl,
        quota=options.quota if wanted.quota is None else wanted.quota,
        on_full=options.on_full if wanted.on_full is None else tuple(wanted.on_full),
    )


def idle_tables(manifests: Sequence[Manifest], settings: Sequence[StreamSettings]) -> Iterator[str]:
    """What in the tables has no effect."""
    handlers = [handler for manifest in manifests for handler in manifest.everything]
    for entry in settings:
        mine = [handler for handler in handlers if _first(handler, settings) is entry]
        if not mine:
            streams = ", ".join(sorted(handler.stream for handler in handlers if handler.stream))
            yield f"[[stream]] match = {entry.match!r} is the first match of no stream; there are {streams or 'none'}"
        for handler in mine:
            if "thin" in (entry.on_full or ()) and not _can_thin(handler):
                yield (
                    f"[[stream]] match = {entry.match!r}: rows of {handler.stream} cannot be merged, so that thin frees "
                    "nothing and the next word is tried; it is for summarize on a tumbling window without revisions"
                )


def _can_thin(handler: HandlerManifest | FunctionManifest) -> bool:
    return isinstance(handler, HandlerManifest) and can_thin(handler.kind, handler.window)
