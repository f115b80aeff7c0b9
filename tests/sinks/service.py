"""A web service on loopback that keeps what it is posted, and goes wrong in the ways that a test asks for."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack
from aiohttp import web

Fault = Callable[["Service", web.Request, list[dict[str, Any]]], Awaitable[web.StreamResponse]]


class Service:
    """`received` has each item once, by its id, in the order of the first arrival; `posts` has every request."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.received: dict[str, dict[str, Any]] = {}
        self.copies = 0  # items that came again
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.queries: list[str] = []
        self.faults: deque[Fault] = deque()  # one for each of the next requests
        self.always: Fault | None = None  # for those after them
        self.port = 0
        self._tls = tls
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/ingest/gw-1"

    async def __aenter__(self) -> Service:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/ingest/{gateway}", self._post)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def take(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            self.copies += item["id"] in self.received
            self.received.setdefault(item["id"], item)

    def seqs(self) -> list[int]:
        return [item["seq"] for item in self.received.values()]

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()  # aiohttp has undone the compression
        self.posts.append((dict(request.headers), body))
        self.queries.append(request.query_string)
        packed = request.content_type == "application/msgpack"
        items = (msgpack.unpackb(body) if packed else json.loads(body))["items"]
        fault = self.faults.popleft() if self.faults else self.always
        if fault:
            return await fault(self, request, items)
        self.take(items)
        return web.Response()


def answers(status: int, headers: dict[str, str] | None = None, text: str = "") -> Fault:
    async def fault(service: Service, request: web.Request, items: list[dict[str, Any]]) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, text=text)

    return fault


def results(*refused: dict[str, Any]) -> Fault:
    """Takes all but those of these results."""

    async def fault(service: Service, request: web.Request, items: list[dict[str, Any]]) -> web.StreamResponse:
        named = {result["id"]: result for result in refused}
        service.take([item for item in items if item["id"] not in named])
        return web.json_response(
            {"results": [named.get(item["id"], {"id": item["id"], "status": 201}) for item in items]}
        )

    return fault


async def forgets_to_answer(service: Service, request: web.Request, items: list[dict[str, Any]]) -> web.StreamResponse:
    """Takes everything and cuts the line."""
    service.take(items)
    assert request.transport
    request.transport.abort()
    return web.Response()


async def answers_half(service: Service, request: web.Request, items: list[dict[str, Any]]) -> web.StreamResponse:
    """Takes everything, and the line is cut in the middle of the answer."""
    service.take(items)
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "400"})
    await response.prepare(request)
    await response.write(b'{"results":[{"id":')
    assert request.transport
    request.transport.close()
    return response


async def drips(service: Service, request: web.Request, items: list[dict[str, Any]]) -> web.StreamResponse:
    """Takes everything, and answers a byte at a time without an end."""
    service.take(items)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


def no_more_than(items_at_a_time: int) -> Fault:
    async def fault(service: Service, request: web.Request, items: list[dict[str, Any]]) -> web.StreamResponse:
        if len(items) > items_at_a_time:
            return web.Response(status=413)
        service.take(items)
        return web.Response()

    return fault


def chokes_on(status: int, *seqs: int) -> Fault:
    """Refuses every batch with one of these in it, without saying which."""

    async def fault(service: Service, request: web.Request, items: list[dict[str, Any]]) -> web.StreamResponse:
        if bad := [item["seq"] for item in items if item["seq"] in seqs]:
            return web.Response(status=status, text=f"item {bad[0]} has no unit")
        service.take(items)
        return web.Response()

    return fault
