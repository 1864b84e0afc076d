"""One HTTP reply: its headers at once, its body as it is read.

FFmpeg is not given the address of a video but the bytes of the reply, so that a video is asked for
once, whether or not its server can serve parts, and so that nothing else is opened on the way.
"""

from __future__ import annotations

import http.client
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from hicom_edge.errors import VideoError
from hicom_edge.runtime.video.source import without_password

SILENCE_SECONDS = 15.0
"""A server that sends nothing for so long has stalled."""

_URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"


class HttpReply:
    """The reply to a GET of ``url``. Raises VideoError where there is none.

    length: bytes of the body, or None where the server does not say. media_type: as the server
    calls it, in lower case.
    """

    def __init__(self, url: str) -> None:
        self._name = without_password(url)
        self._response = self._ask(url)
        self._ahead = b""
        headers = self._response.headers
        announced = headers.get("Content-Length", "")
        chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        self.length = int(announced) if announced.isdecimal() and not chunked else None
        self.media_type = headers.get("Content-Type", "").split(";")[0].strip().lower()

        self._parts: queue.Queue[bytes | Exception] = queue.Queue(maxsize=64)
        self._closed = threading.Event()
        self._heard = time.monotonic()
        threading.Thread(target=self._receive, daemon=True).start()

    def peek(self) -> bytes:
        """The first bytes of the body, which `read` gives again."""
        forever = float("inf")
        while len(self._ahead) < 64 and (more := self._next_part(forever)):
            self._ahead += more
        return self._ahead

    def read(self, size: int = -1, until: float = float("inf")) -> bytes:
        """What has arrived, at most ``size`` bytes; waits for some. Empty at the end.

        until: raises TimeoutError when nothing has come by then, in time.monotonic() seconds.
        """
        part = self._ahead or self._next_part(until)
        if 0 < size < len(part):
            part, self._ahead = part[:size], part[size:]
        else:
            self._ahead = b""
        return part

    def close(self) -> None:
        """Hang up."""
        self._closed.set()

    def _next_part(self, until: float) -> bytes:
        patience = self._heard + SILENCE_SECONDS
        try:
            part = self._parts.get(timeout=max(min(until, patience) - time.monotonic(), 0.001))
        except queue.Empty:
            if until < patience:
                raise TimeoutError from None
            part = TimeoutError()
        if isinstance(part, TimeoutError):
            raise VideoError(
                f"{self._name}: the server has stalled, it sent nothing for "
                f"{SILENCE_SECONDS:.0f} s; check it and the network"
            ) from part
        if isinstance(part, Exception):
            raise VideoError(
                f"{self._name}: the connection broke ({_reason(part)}); check the network and try "
                "again"
            ) from part
        self._heard = time.monotonic()
        if not part:
            self._parts.put(part)  # the end stays the end
        return part

    def _receive(self) -> None:
        """Reads the body in a thread of its own, so that waiting for it can end at any time."""
        part: bytes | Exception = b"-"
        while part and not self._closed.is_set() and not isinstance(part, Exception):
            try:
                part = self._response.read1(65536)
            except (OSError, ValueError, http.client.HTTPException) as error:
                part = error
            while not self._closed.is_set():
                with suppress(queue.Full):
                    self._parts.put(part, timeout=0.2)
                    break
        with suppress(OSError):
            self._response.close()

    def _ask(self, url: str) -> http.client.HTTPResponse:
        address, user = _without_user(url)
        request = urllib.request.Request(quote(address, _URL_CHARACTERS))
        request.add_header("User-Agent", "hicom-edge")
        request.add_header("Accept-Encoding", "identity")
        try:
            opened = _opener(address, user).open(request, timeout=SILENCE_SECONDS)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise VideoError(
                f"{self._name}: cannot be opened ({_reason(error)}); check the address and the "
                "network"
            ) from error
        response: http.client.HTTPResponse = opened
        return response


def _opener(address: str, user: tuple[str, str] | None) -> urllib.request.OpenerDirector:
    """HTTP and HTTPS, through proxies of the environment; redirects lead nowhere else."""
    opener = urllib.request.OpenerDirector()
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ]
    if user is not None:
        known = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        known.add_password(None, address, *user)
        handlers.append(urllib.request.HTTPBasicAuthHandler(known))
        handlers.append(urllib.request.HTTPDigestAuthHandler(known))
    for handler in handlers:
        opener.add_handler(handler)
    return opener


def _without_user(url: str) -> tuple[str, tuple[str, str] | None]:
    """The URL without its user and password, and these."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    address = urlunsplit(parts._replace(netloc=host, fragment=""))
    if not at:
        return address, None
    name, _, password = user.partition(":")
    return address, (unquote(name), unquote(password))


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        # urllib's reason for endless redirects has several lines; the last is the server's own
        return f"HTTP {error.code} {str(error.reason).strip().splitlines()[-1]}"
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, TimeoutError):
        return f"no reply within {SILENCE_SECONDS:.0f} s"
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return re.sub(r"\s+", " ", str(text))
