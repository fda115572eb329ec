"""The closed sets of words that rows are marked with."""

from enum import StrEnum


class CaptionStatus(StrEnum):
    """What became of one caption; each row has exactly one."""

    OK = "ok"
    TRIMMED = "trimmed"  # the open last sentence was cut off; at least half of the text stayed
    TRUNCATED = "truncated"  # ended by the token limit, and could not be trimmed
    REPETITION = "repetition"
    REFUSAL = "refusal"
    LEAK = "leak"  # parts of the prompt or of the chat template in the answer
    EMPTY = "empty"
    NON_ENGLISH = "non_english"
    TOO_SHORT = "too_short"
    DUPLICATE_TEXT = "duplicate_text"
    ENGINE_ERROR = "engine_error"


USABLE_STATUSES = frozenset({CaptionStatus.OK, CaptionStatus.TRIMMED})


class RejectReason(StrEnum):
    """Why a row was refused. The code is stable; the detail beside it is for people."""

    # grouping of tar members into samples
    DUPLICATE_KEY = "duplicate_key"
    INTERLEAVED_KEY = "interleaved_key"
    DOTTED_KEY = "dotted_key"
    BAD_KEY = "bad_key"
    TRUNCATED_MEMBER = "truncated_member"
    NO_IMAGE = "no_image"
    SEVERAL_IMAGES = "several_images"
    # download: http_4xx and http_5xx are those without a code of their own
    HTTP_401 = "http_401"
    HTTP_403 = "http_403"
    HTTP_404 = "http_404"
    HTTP_410 = "http_410"
    HTTP_429 = "http_429"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    BAD_REDIRECT = "bad_redirect"
    TIMEOUT = "timeout"
    DNS = "dns"
    CONNECTION = "connection"
    TLS = "tls"
    TRUNCATED = "truncated"  # fewer bytes came than were announced
    OPTED_OUT = "opted_out"  # X-Robots-Tag forbids the use for training
    BAD_URL = "bad_url"
    DOWNLOAD_FAILED = "download_failed"
    LOST = "lost"  # the downloader wrote neither a whole sample nor a failure
    # what the adapter found in the sample's other members
    BAD_METADATA = "bad_metadata"
    # decoding
    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    CORRUPT = "corrupt"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    ASPECT_RATIO = "aspect_ratio"
    # features
    NON_FINITE = "non_finite"
    UNUSABLE_CAPTION = "unusable_caption"
    NO_CAPTION = "no_caption"
    AMBIGUOUS_CAPTION = "ambiguous_caption"  # several were published under its key, or one for several samples
    CRASHED = "crashed"
    # no fault of the row
    NOT_SELECTED = "not_selected"  # the selection leaves it out; does not count towards --max-rejected
