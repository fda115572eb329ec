"""What a failed download is called: img2dataset keeps the text of an exception, we want a code that can be counted."""

import re
from typing import Final

from curation.refusal import Refusal
from schemas.status import RejectReason

_HTTP: Final = re.compile(r"HTTP Error (\d{3})")
_OWN_CODES: Final = {code: RejectReason(f"http_{code}") for code in (401, 403, 404, 410, 429)}
# The first pattern that is found decides. The texts are those of urllib, http.client, socket, ssl and img2dataset.
_TEXTS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (r"X-Robots-Tag", RejectReason.OPTED_OUT),
        (r"redirect error|infinite loop|redirection to url", RejectReason.BAD_REDIRECT),
        (r"IncompleteRead", RejectReason.TRUNCATED),
        (r"timed out|timeout", RejectReason.TIMEOUT),
        (
            r"name or service not known|name resolution|nodename nor servname|no address associated|getaddrinfo",
            RejectReason.DNS,
        ),
        (r"\bssl\b|\[ssl|certificate|violation of protocol", RejectReason.TLS),
        (
            r"unknown url type|no host given|control characters|nonnumeric port|invalid ipv6|codec can't encode"
            r"|idna|label (empty|too long)|no host supplied",
            RejectReason.BAD_URL,
        ),
        (
            r"connection|remote end closed|no route to host|unreachable|broken pipe|urlopen error",
            RejectReason.CONNECTION,
        ),
        (r"image too small", RejectReason.TOO_SMALL),
        (r"image decoding error|unknown file extension", RejectReason.NOT_AN_IMAGE),
    )
)

LASTING: Final = frozenset(
    {
        RejectReason.HTTP_401,
        RejectReason.HTTP_403,
        RejectReason.HTTP_404,
        RejectReason.HTTP_410,
        RejectReason.HTTP_4XX,
        RejectReason.OPTED_OUT,
        RejectReason.BAD_REDIRECT,
        RejectReason.NOT_AN_IMAGE,
        RejectReason.UNSUPPORTED_FORMAT,
        RejectReason.TOO_MANY_PIXELS,
        RejectReason.TOO_SMALL,
        RejectReason.ASPECT_RATIO,
    }
)
"""Failures that another try will most likely meet again; `--retry transient` leaves them alone."""

NEVER_AGAIN: Final = frozenset({RejectReason.BAD_URL})
"""Failures that follow from the metadata alone, so that no try can change them."""


def failure(message: str) -> Refusal:
    """The refusal for what img2dataset says of a row that it could not fetch."""
    http = _HTTP.search(message)
    if http and not _TEXTS[1][0].search(message):
        code = int(http[1])
        reason = _OWN_CODES.get(code)
        if reason is None:
            reason = {4: RejectReason.HTTP_4XX, 5: RejectReason.HTTP_5XX}.get(code // 100, RejectReason.DOWNLOAD_FAILED)
        return Refusal(reason, message)
    for pattern, reason in _TEXTS:
        if pattern.search(message):
            return Refusal(reason, message)
    return Refusal(RejectReason.DOWNLOAD_FAILED, message or "no reason was given")
