"""The Calculate screen's routes, below /api/calculate/. A row is evaluated in the studio's pool, with a deadline."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cllm.studio.calculate_sheet import MAX_DIGITS, MAX_ROWS, names
from cllm.studio.web import body, compute, json

ROW_SECONDS = 10.0
CERTIFICATE_SECONDS = 30.0


class RowBody(msgspec.Struct, forbid_unknown_fields=True):
    """A row and the rows above it, in order."""

    text: str
    above: list[str] = []
    digits: int = 30


class CertificateBody(msgspec.Struct, forbid_unknown_fields=True):
    """An integer, as an expression."""

    n: str


async def about(request: Request) -> Response:
    """GET /api/calculate: every name that can be typed, and the limits."""
    return json({"names": names(), "digits": MAX_DIGITS, "rows": MAX_ROWS})


async def row(request: Request) -> Response:
    """POST /api/calculate/row: the value of a row, or what is wrong with it."""
    asked = await body(request, RowBody)
    found = await compute(
        request, "cllm.studio.calculate_sheet:row", seconds=ROW_SECONDS, above=asked.above, text=asked.text,
        digits=asked.digits,
    )  # fmt: skip
    return json(found)


async def certificate(request: Request) -> Response:
    """POST /api/calculate/certificate: factors with a proof for each prime."""
    asked = await body(request, CertificateBody)
    found = await compute(
        request, "cllm.studio.calculate_certificate:certificate", seconds=CERTIFICATE_SECONDS, text=asked.n
    )
    return json(found)


routes: list[BaseRoute] = [
    Route("/api/calculate", about),
    Route("/api/calculate/row", row, methods=["POST"]),
    Route("/api/calculate/certificate", certificate, methods=["POST"]),
]
