"""HTTP requests for files: one request, redirects within http and https only, errors told apart by what helps.

The standard library's client, without its handlers of ``file:`` and ``ftp:``, to which a server could redirect.
"""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from vcil_bench import __version__

from .errors import Unreachable

TIMEOUT_S = 60.0
# Statuses below 500 after which the same request may succeed: time-out, too early, too many.
_PASSING = (408, 425, 429)
NETWORK_ERRORS = (OSError, http.client.HTTPException)


@dataclass(frozen=True)
class Headers:
    """What a server says of a file.

    Attributes:
        size: Bytes; None where it does not say.
        validator: What changes with the file: its ETag, else its date; "" without either.
        ranges: Whether it said that a download can be resumed.
    """

    size: int | None
    validator: str
    ranges: bool


def open_url(
    url: str, headers: Mapping[str, str] | None = None, *, method: str = "GET", timeout_s: float = TIMEOUT_S
) -> http.client.HTTPResponse:
    """Ask for an address; the caller closes what is returned.

    Args:
        url: The address, http or https.
        headers: More headers of the request.
        method: ``GET`` or ``HEAD``.
        timeout_s: Seconds without a byte after which it is given up.

    Raises:
        Unreachable: No answer, or one other than the file.
    """
    if not re.match(r"https?://[^/]", url):
        raise Unreachable(f"{url!r} is no address; it must begin with http:// or https://", lasting=True)
    sent = {"User-Agent": f"vcil-bench/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
    try:
        request = urllib.request.Request(url, headers=sent, method=method)
        answer: http.client.HTTPResponse = _opener().open(request, timeout=timeout_s)
        return answer
    except urllib.error.HTTPError as error:
        error.close()
        lasting = error.code < 500 and error.code not in _PASSING
        text = f"{url}: the server answers {error.code} ({error.reason})"
        raise Unreachable(text, status=error.code, lasting=lasting) from error
    except (http.client.InvalidURL, ValueError) as error:  # such as a port that is no number
        raise Unreachable(f"{url!r} is no address ({error})", lasting=True) from error
    except NETWORK_ERRORS as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise Unreachable(
                f"{url}: the server's certificate is not valid ({reason}), so nobody vouches for what it "
                "sends; download the file in a way you trust and give its folder with --from FOLDER",
                lasting=True,
            ) from error
        raise Unreachable(f"{url}: cannot be reached ({reason})") from error


def read_headers(url: str, *, timeout_s: float = TIMEOUT_S) -> Headers:
    """Ask for the headers of a file; a server that knows no HEAD is asked for the file's first byte.

    Raises:
        Unreachable: The address does not give the file.
    """
    try:
        with open_url(url, method="HEAD", timeout_s=timeout_s) as answer:
            return Headers(_length(answer), validator(answer), answer.headers.get("Accept-Ranges") == "bytes")
    except Unreachable as error:
        if error.status not in (403, 405, 501):
            raise
    with open_url(url, {"Range": "bytes=0-0"}, timeout_s=timeout_s) as answer:
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            return Headers(content_range(answer)[1], validator(answer), True)
        return Headers(_length(answer), validator(answer), False)


def validator(answer: http.client.HTTPResponse) -> str:
    """Return the ETag of an answer, else its date, else ""."""
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""


def content_range(answer: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Return where a partial answer begins, and the size of the whole file if it says it; -1 for nonsense."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range") or "")
    if match is None:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _length(answer: http.client.HTTPResponse) -> int | None:
    length = answer.headers.get("Content-Length") or ""
    return int(length) if length.isdecimal() else None


def _opener() -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
