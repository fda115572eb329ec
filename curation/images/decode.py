"""The one way in which a picture's bytes become RGB pixels. The rules are told in docs/decode-policy.md.

Whatever the bytes are, the answer is a `Decoded` or a `Refusal`; nothing is half-decoded, and nothing is guessed from a
file's name. Safe to call from several threads at once.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from PIL import ExifTags, Image, ImageFile
from PIL.AvifImagePlugin import SUPPORTED as AVIF_SUPPORTED
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from curation.images.completeness import jpeg_ends_early, png_ends_early
from curation.images.formats import SUPPORTED, sniff, webp_canvas
from curation.images.modes import SampleFacts, to_rgb
from curation.refusal import Refusal
from schemas.errors import UserError
from schemas.status import RejectReason

T = TypeVar("T")

DECODE_VERSION: Final = 1
"""Raised whenever the same bytes under the same policy come out as other pixels, another size or another refusal."""

_READERS: Final[dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "AVIF": AvifImageFile,
}
# What malformed bytes raise. `Warning` is among them for callers who have turned warnings into errors.
_DATA_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Warning,
)
# Pillow's readers stumble over them in these ways too. In our own code the same would be mistakes, so these are caught
# around calls into a reader and nowhere else.
_READER_ERRORS: Final = (
    *_DATA_ERRORS,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
)
# Pillow's words for a sound file of a kind that it does not read, such as a JPEG of 12 bits.
_BEYOND_PILLOW: Final = (
    "cannot handle",
    "unknown pixel mode",
    "Unsupported BMP bitfields",
    "Unsupported BMP compression",
)
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PILLOWS_LIMIT: Final = 178_956_970  # pixels above which some of its readers refuse by themselves
_SIDEWAYS: Final = (5, 6, 7, 8)
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339

# Pillow warns of odd metadata, never of pixels. Set once here: warnings.catch_warnings is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True, slots=True)
class DecodePolicy:
    """Which pictures are taken, and how. All of it changes the output, so all of it belongs in the fingerprint.

    Sides and pixels are of the picture as it is stored, before any scaled decoding. Raises `UserError` for values that
    make no sense.
    """

    min_side: int = 32  # px; a shorter side is refused
    max_pixels: int = 100_000_000  # height × width, read from the header before anything is decoded
    max_aspect: float = 10.0  # longer side / shorter side
    background: tuple[int, ...] = (255, 255, 255)  # RGB, under transparent pixels
    formats: tuple[str, ...] = SUPPORTED
    exif_orientation: bool = True  # False leaves the pixels as stored; TIFF, where it is no metadata, is always turned
    frame: str = "first"  # the only choice: of animations, of pages, of MPO
    version: int = DECODE_VERSION

    def __post_init__(self) -> None:
        unknown = sorted(set(self.formats) - set(SUPPORTED))
        if unknown:
            raise UserError(f"decode policy: cannot decode {', '.join(unknown)}; choose from {', '.join(SUPPORTED)}.")
        if self.min_side < 1 or not 1 <= self.max_pixels <= _PILLOWS_LIMIT or not self.max_aspect >= 1:
            raise UserError(
                f"decode policy: min_side {self.min_side} and max_aspect {self.max_aspect} must be at least 1, "
                f"and max_pixels {self.max_pixels} within 1 and {_PILLOWS_LIMIT}."
            )
        if len(self.background) != 3 or not all(0 <= c <= 255 for c in self.background):
            raise UserError(f"decode policy: background {self.background} is not three values of 0 to 255.")
        if self.frame != "first" or self.version != DECODE_VERSION:
            raise UserError(
                f"decode policy: frame {self.frame!r}, version {self.version}; "
                f"this latentmill knows 'first' and {DECODE_VERSION}. Make the dataset again with this version."
            )


@dataclass(frozen=True, slots=True)
class Decoded:
    """A whole picture.

    `image` has mode RGB and no metadata. `original_height` and `original_width` are pixels after EXIF orientation and
    before scaled decoding. `notes` says what was unusual about the file, such as "cmyk" or "exif-rotated".
    """

    image: Image.Image
    format: str
    original_height: int
    original_width: int
    notes: tuple[str, ...]


def decode(data: bytes, policy: DecodePolicy, *, at_least: tuple[int, int] | None = None) -> Decoded | Refusal:
    """Decode `data` under `policy`.

    `at_least` (height, width) in px allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides
    stay at least that large, or as large as they are. Ask for twice the size that you want: a picture resized by less
    than two after a scaled decode shows the loss (38 dB on SA-1B against 52 dB from twice the size up).

    Raises ValueError if `at_least` is not positive.
    """
    if at_least is not None and min(at_least) < 1:
        raise ValueError(f"at_least {at_least} is not positive")
    # Other libraries of the process may set this, and then half a picture would pass for a whole one.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    opened = _open(data, policy)
    if isinstance(opened, Refusal):
        return opened
    notes = _frame_notes(opened)
    stored, orientation = opened.size, 1
    if isinstance(opened, JpegImageFile):
        orientation = _orientation(opened, policy, notes)
        if at_least is not None:
            opened.draft(None, at_least if orientation in _SIDEWAYS else at_least[::-1])
    facts = _sample_facts(opened, data, notes)
    if refused := _load(opened, data):
        return refused
    if not isinstance(opened, JpegImageFile):  # elsewhere EXIF may follow the pixels, and nothing was scaled
        stored, orientation = opened.size, _orientation(opened, policy, notes)
    converted = _attempt(lambda: to_rgb(opened, facts, policy.background), "no way to RGB", _DATA_ERRORS)
    if isinstance(converted, Refusal):
        return converted
    image, colour_notes = converted
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
        notes.append("exif-rotated")
    image.info = {}
    width, height = stored[::-1] if orientation in _SIDEWAYS else stored
    return Decoded(image, opened.format or "", height, width, tuple(sorted({*notes, *colour_notes})))


def jpeg_size(data: bytes, policy: DecodePolicy) -> tuple[int, int] | Refusal:
    """(height, width) in px after EXIF orientation of a JPEG, of which `data` needs to be no more than the header.

    Nothing is decoded, so the pixels may be damaged all the same.
    """
    opened = _open(data, policy)
    if isinstance(opened, Refusal):
        return opened
    sideways = _orientation(opened, policy, []) in _SIDEWAYS
    return (opened.width, opened.height) if sideways else (opened.height, opened.width)


def _open(data: bytes, policy: DecodePolicy) -> ImageFile.ImageFile | Refusal:
    """The file with its header read and its format and size found acceptable; no pixel is decoded yet."""
    if not data:
        return Refusal(RejectReason.EMPTY_FILE, "the file has no bytes")
    found = sniff(data)
    if found is None:
        return Refusal(RejectReason.NOT_AN_IMAGE, f"begins with {data[:16]!r}, which is no picture format we know")
    if found not in policy.formats:
        return Refusal(RejectReason.UNSUPPORTED_FORMAT, f"{found}; taken are {', '.join(policy.formats)}")
    if found == "AVIF" and not AVIF_SUPPORTED:
        return Refusal(RejectReason.UNSUPPORTED_FORMAT, "AVIF, which this build of Pillow cannot read")
    canvas = webp_canvas(data) if found == "WEBP" else None
    if canvas and (refused := _refuse_size(*canvas, policy)):
        return refused
    reader = partial(_READERS[found], io.BytesIO(data))
    opened = _attempt(reader, f"{found} header cannot be read", _READER_ERRORS)
    if isinstance(opened, Refusal):
        return opened
    return _refuse_size(opened.height, opened.width, policy) or opened


def _attempt(call: Callable[[], T], failure: str, errors: tuple[type[Exception], ...]) -> T | Refusal:
    """What `call` returns; a refusal beginning with `failure` where it raises one of `errors`."""
    try:
        return call()
    except Image.DecompressionBombError as error:
        return Refusal(RejectReason.TOO_MANY_PIXELS, str(error))
    except errors as error:
        beyond = any(words in str(error) for words in _BEYOND_PILLOW)
        reason = RejectReason.UNSUPPORTED_FORMAT if beyond else RejectReason.CORRUPT
        return Refusal(reason, f"{failure}: {type(error).__name__}: {error}")


def _refuse_size(height: int, width: int, policy: DecodePolicy) -> Refusal | None:
    size = f"{height}x{width} px"
    if height * width > policy.max_pixels:
        return Refusal(RejectReason.TOO_MANY_PIXELS, f"{size} are {height * width} pixels, above {policy.max_pixels}")
    if min(height, width) < policy.min_side:
        return Refusal(RejectReason.TOO_SMALL, f"{size}, a side below {policy.min_side}")
    if max(height, width) > policy.max_aspect * min(height, width):
        return Refusal(RejectReason.ASPECT_RATIO, f"{size}, sides beyond {policy.max_aspect:g} to 1")
    return None


def _orientation(image: ImageFile.ImageFile, policy: DecodePolicy, notes: list[str]) -> int:
    """The EXIF orientation, 1 to 8. Metadata that cannot be read say nothing: 1, and a note."""
    exif = _attempt(image.getexif, "EXIF", _READER_ERRORS)
    if isinstance(exif, Refusal) or (
        image.info.get("exif") and not exif
    ):  # JPEG's reader hides the error, and reads on
        notes.append("bad-exif")
        return 1
    orientation = exif.get(ExifTags.Base.Orientation)
    return orientation if policy.exif_orientation and orientation in _TURNS else 1


def _sample_facts(image: ImageFile.ImageFile, data: bytes, notes: list[str]) -> SampleFacts:
    """What the header says of the samples. Of TIFF, also notes the turn that Pillow makes while loading."""
    if isinstance(image, PngImageFile):
        return SampleFacts(bits=data[24])
    if isinstance(image, TiffImageFile):
        if image.tag_v2.get(ExifTags.Base.Orientation, 1) in _TURNS:
            notes.append("exif-rotated")
        bits = image.tag_v2.get(_BITS, (1,))
        sample_format = image.tag_v2.get(_SAMPLE_FORMAT, (1,))
        return SampleFacts(
            bits=bits[0] if isinstance(bits, tuple) and bits else None,
            signed=isinstance(sample_format, tuple) and sample_format[:1] == (2,),
            white_is_zero=image.tag_v2.get(_PHOTOMETRIC) == 0,
        )
    return SampleFacts()


def _load(image: ImageFile.ImageFile, data: bytes) -> Refusal | None:
    """Decode the pixels of `image`, all of them; a refusal where that fails."""
    loaded = _attempt(image.load, f"{image.format} cannot be decoded", _READER_ERRORS)
    if isinstance(loaded, Refusal):
        return loaded
    early: bool | Refusal = False
    if isinstance(image, JpegImageFile):
        early = _attempt(lambda: jpeg_ends_early(data, image), "JPEG scan", _DATA_ERRORS)
    elif isinstance(image, PngImageFile):
        early = _attempt(lambda: png_ends_early(data, image), "PNG rows", _DATA_ERRORS)
    if isinstance(early, Refusal):
        return early
    return Refusal(RejectReason.CORRUPT, f"{image.format} ends before its last row") if early else None


def _frame_notes(image: ImageFile.ImageFile) -> list[str]:
    if isinstance(image, JpegImageFile):
        return ["mpo"] if "mp" in image.info else []
    several = _attempt(lambda: bool(getattr(image, "is_animated", False)), "later frames", _READER_ERRORS)
    if isinstance(several, Refusal):
        return ["bad-later-frame"]
    return ["animated"] if several else []
