"""Who may talk to the studio: a pure ASGI guard in front of every route, WebSockets and files included.

The model is Jupyter's. A random token is made at each start; `/?token=…` exchanges it for a cookie that scripts cannot
read and other sites cannot send (HttpOnly, SameSite=Strict). Beside the token, because a page of another site or of
another port runs in the same browser:

* the Host header must be a name this server was started for (DNS rebinding);
* an Origin header must be the studio's own; a WebSocket must have one;
* Sec-Fetch-Site, where the browser says it, must be same-origin, or none (typed by the user);
* a body must be JSON, of at most `BODY_LIMIT` bytes, and arrive within `BODY_SECONDS`.

Refusals of the first three and of the token are 403, whether or not there is such a route.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_LIMIT = 1 << 20  # bytes; a route may allow more through LARGER
BODY_SECONDS = 10.0
LARGER: dict[str, int] = {"/api/train/text": 33 << 20}  # pasted text: 8 Mi characters, at most four bytes each

_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; connect-src 'self' {sockets}; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
}
_NOBODY = (
    "This is a Crystalline studio, and this browser has not been let in.\n"
    "Open the address that `cllm studio` printed: it ends in ?token=…\n"
)


class Refused(Exception):
    """A request that is not answered: status and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Access:
    """What the guard checks against.

    port: the one that is listened on.  names: host names the studio answers to, without port.
    literals: also answer to any IP address written out (for a server on all interfaces; a rebinding attack needs a
    name, so this lets none in).
    """

    def __init__(
        self,
        port: int,
        names: Sequence[str] = ("127.0.0.1", "localhost", "[::1]"),
        *,
        token: str | None = None,
        literals: bool = False,
    ) -> None:
        self.port, self.literals = port, literals
        self.names = {name.lower() for name in names}
        self.token = token or secrets.token_urlsafe(32)

    @property
    def cookie(self) -> str:
        """The cookie's name: browsers share cookies between ports, so each has its own."""
        return f"cllm-studio-{self.port}"

    def known_host(self, host: str) -> bool:
        """Whether a Host header (or the part of an Origin behind the scheme) is the studio's."""
        name, colon, port = host.lower().rpartition(":")
        if not colon or port != str(self.port):
            if self.port != 80 or colon:
                return False
            name = host.lower()
        if name in self.names:
            return True
        if not self.literals:
            return False
        try:
            ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
        except ValueError:
            return False
        return True

    def known_origin(self, origin: str) -> bool:
        """Whether an Origin header is the studio's own (`null` is not)."""
        return origin.startswith("http://") and self.known_host(origin.removeprefix("http://"))

    def right_token(self, token: str) -> bool:
        """Compared in constant time."""
        return hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self.token.encode())


class Guard:
    """The ASGI middleware: refuses, lets in, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            let_in = self._check(scope, headers)
        except Refused as refused:
            await self._refuse(scope, receive, send, refused, headers)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        guarded = self._with_headers(send, headers)
        if let_in is not None:
            await let_in(scope, receive, guarded)
            return
        body = _Body(receive, LARGER.get(scope["path"], BODY_LIMIT))
        await self.app(scope, body, guarded)

    def _check(self, scope: Scope, headers: Headers) -> Response | None:
        """Raises Refused; returns the redirect that sets the cookie when the token is in the address."""
        socket = scope["type"] == "websocket"
        method = "GET" if socket else scope["method"]
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.access.known_host(hosts[0]):
            raise Refused(403, "this studio is not called that (Host header)")
        origins = headers.getlist("origin")
        if (socket and not origins) or not all(self.access.known_origin(origin) for origin in origins):
            raise Refused(403, "a request from another site (Origin header)")
        if any(site not in ("same-origin", "none") for site in headers.getlist("sec-fetch-site")):
            raise Refused(403, "a request from another site (Sec-Fetch-Site header)")
        if not self._has_cookie(headers):
            if method == "GET" and not socket:
                return self._exchange(scope)
            raise Refused(403, _NOBODY)
        if method not in ("GET", "HEAD"):
            self._check_body(scope, headers, method)
        return self._exchange(scope) if b"token=" in scope["query_string"] and method == "GET" and not socket else None

    def _check_body(self, scope: Scope, headers: Headers, method: str) -> None:
        if method != "POST":
            raise Refused(405, f"{method} is not used here; expected GET, HEAD or POST")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415, "expected a body of content type application/json")
        length, limit = headers.get("content-length"), LARGER.get(scope["path"], BODY_LIMIT)
        if length is not None and length.isdecimal() and int(length) > limit:
            raise Refused(413, f"the body has {length} bytes; at most {limit} are taken")

    def _has_cookie(self, headers: Headers) -> bool:
        for line in headers.getlist("cookie"):
            try:
                jar: SimpleCookie = SimpleCookie(line)
            except CookieError:
                continue
            if self.access.cookie in jar and self.access.right_token(jar[self.access.cookie].value):
                return True
        return False

    def _exchange(self, scope: Scope) -> Response:
        """`/?token=…` → 303 to the same page without it, and the cookie."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for key, value in query if key == "token"]
        path = scope["path"]
        if path.startswith("/api/") or len(given) != 1 or not self.access.right_token(given[0]):
            raise Refused(403, _NOBODY)
        rest = urlencode([(key, value) for key, value in query if key != "token"])
        # one slash at the beginning: "//elsewhere" would name another host
        answer = RedirectResponse("/" + path.lstrip("/\\") + (f"?{rest}" if rest else ""), status_code=303)
        answer.set_cookie(self.access.cookie, self.access.token, httponly=True, samesite="strict", path="/")
        answer.headers["cache-control"] = "no-store"
        return answer

    def _with_headers(self, send: Send, headers: Headers) -> Send:
        host = headers.get("host", "")
        policy = _POLICY.format(sockets=f"ws://{host}" if self.access.known_host(host) else "")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                out["content-security-policy"] = policy
                for name, value in _HEADERS.items():
                    out[name] = value
                out.setdefault("cache-control", "no-store")
            await send(message)

        return guarded

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refused: Refused, headers: Headers) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})  # before accept: HTTP 403
            return
        plain = not scope["path"].startswith("/api/")
        answer = (
            PlainTextResponse(refused.why, refused.status)
            if plain
            else JSONResponse({"error": refused.why.strip(), "kind": "Refused"}, refused.status)
        )
        answer.headers["connection"] = "close"  # a body that is still coming is not read
        await answer(scope, receive, self._with_headers(send, headers))


class _Body:
    """Counts and times a body on its way in. Raises Refused in the route that reads it."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit, self._seen, self._over = receive, limit, 0, False
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def __call__(self) -> Message:
        if self._over:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {BODY_SECONDS:g} seconds") from None
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            self._over = not message.get("more_body", False)
            if self._seen > self._limit:
                raise Refused(413, f"the body is longer than the {self._limit} bytes that are taken")
        return message
