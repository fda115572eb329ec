"""The code for each message with which a download can fail."""

import pytest

from curation.ingest.failures import failure
from schemas.status import RejectReason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("HTTP Error 404: Not Found", "http_404"),
        ("HTTP Error 403: Forbidden", "http_403"),
        ("HTTP Error 429: Too Many Requests", "http_429"),
        ("HTTP Error 418: I'm a teapot", "http_4xx"),
        ("HTTP Error 408: Request Timeout", "http_4xx"),
        ("HTTP Error 503: Service Unavailable", "http_5xx"),
        ("HTTP Error 504: Gateway Timeout", "http_5xx"),
        (
            "HTTP Error 302: The HTTP server returned a redirect error that would lead to an infinite loop.\nThe last "
            "30x error message was:\nFound",
            "bad_redirect",
        ),
        ("HTTP Error 301: Redirection to url 'file:///etc/passwd' is not allowed", "bad_redirect"),
        ("<urlopen error timed out>", "timeout"),
        ("The read operation timed out", "timeout"),
        ("<urlopen error [Errno -2] Name or service not known>", "dns"),
        ("<urlopen error [Errno -3] Temporary failure in name resolution>", "dns"),
        ("<urlopen error [Errno 8] nodename nor servname provided, or not known>", "dns"),
        ("<urlopen error [Errno 111] Connection refused>", "connection"),
        ("[Errno 104] Connection reset by peer", "connection"),
        ("Remote end closed connection without response", "connection"),
        ("<urlopen error [Errno 113] No route to host>", "connection"),
        ("<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired>", "tls"),
        ("EOF occurred in violation of protocol (_ssl.c:997)", "tls"),
        ("IncompleteRead(1024 bytes read, 99 more expected)", "truncated"),
        ("Use of image disallowed by X-Robots-Tag directive", "opted_out"),
        ("unknown url type: 'htp'", "bad_url"),
        ("URL can't contain control characters. '/a b' (found at least ' ')", "bad_url"),
        ("'ascii' codec can't encode character '\\xe9' in position 5", "bad_url"),
        ("encoding with 'idna' codec failed (UnicodeError: label empty or too long)", "bad_url"),
        ("image too small", "too_small"),
        ("Image decoding error", "not_an_image"),
        ("something new", "download_failed"),
        ("", "download_failed"),
    ],
)
def test_each_message_has_its_code(message: str, reason: str) -> None:
    found = failure(message)
    assert found.reason == RejectReason(reason)
    assert found.detail
    assert "\n" not in found.detail
