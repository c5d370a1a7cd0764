"""Takes from image files what could name a person: EXIF, comments, descriptions; pixels stay as they are.

Containers are rewritten without decoding what they hold, and then compared: a file whose header or pixels would
read differently is left as it was, and said. Names of files and what is drawn into the pixels are not looked at.
"""

import re
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from useg.data.stripping_tiff import NotUnderstood, ways_to_strip
from useg.errors import UsegError

_DECODED_AT_MOST = 2**28
"""Larger images are compared by their headers alone."""

_GIF_KEPT = (b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012")
_NO_TEXT_INSIDE = ("bmp", "npy")
_PNG_KEPT = frozenset(
    {b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT", b"bKGD", b"hIST", b"sPLT", b"pHYs"}
    | {b"oFFs", b"pCAL", b"sCAL", b"sTER", b"acTL", b"fcTL", b"fdAT", b"mDCV", b"cLLI"}
)
_JPEG_KEPT = frozenset({0xE0, 0xE2, 0xEE})  # JFIF, the ICC profile, and Adobe's statement of the colours
_Fields = tuple[tuple[int, int], ...]
_NIFTI1_TEXTS: _Fields = ((4, 10), (14, 18), (148, 80), (228, 24), (328, 16))
_NIFTI2_TEXTS: _Fields = ((240, 80), (320, 24), (508, 16))


@dataclass(frozen=True)
class Stripped:
    """A file without what could name a person.

    Attributes:
        content: the new bytes; None where the file is fine as it is.
        left: what could not be taken away, in words.
    """

    content: bytes | None
    left: tuple[str, ...] = ()


def strip_file(path: Path) -> Stripped:
    """Strip one file.

    Raises:
        OSError: the file cannot be read.
    """
    from useg.data.containers import HDF5_SUFFIXES
    from useg.data.images import read_header, suffix_of

    if suffix_of(path) in HDF5_SUFFIXES:
        return Stripped(None, _attributes(path))
    try:
        header = read_header(str(path))
    except (UsegError, OSError) as error:
        return Stripped(None, (f"not read as an image, so not stripped: {error}",))
    if header.format in _NO_TEXT_INSIDE:
        return Stripped(None)
    content = path.read_bytes()
    left: tuple[str, ...] = ()
    for attempt in _attempts(header.format, header.orientation):
        try:
            stripped, left = attempt(content)
        except (NotUnderstood, struct.error, IndexError, ValueError, EOFError, OSError) as error:
            left = (f"could not be stripped: {error}",)
            continue
        if stripped == content:
            return Stripped(None, left)
        if _reads_the_same(path, stripped):
            return Stripped(stripped, left)
        left = ("could not be stripped: it would read differently afterwards",)
    return Stripped(None, left or (f"what {header.format} files say beside the pixels was kept",))


def _attributes(path: Path) -> tuple[str, ...]:
    """What the attributes of an HDF5 file are called; they are never taken away."""
    import h5py

    names: set[str] = set()
    try:
        with h5py.File(path, "r") as opened:
            names.update(opened.attrs)
            opened.visititems(lambda _, node: names.update(node.attrs))
    except OSError as error:
        return (f"not read as an HDF5 file, so not stripped: {error}",)
    return (f"its attributes were kept: {', '.join(sorted(names))}",) if names else ()


_Attempt = Callable[[bytes], tuple[bytes, tuple[str, ...]]]


def _attempts(format_name: str, orientation: int) -> list[_Attempt]:
    """Ways to strip a format, the most thorough one first."""
    if format_name == "jpeg":
        return [lambda content: (strip_jpeg(content, orientation), ())]
    if format_name == "png":
        return [lambda content: (strip_png(content, orientation), ())]
    if format_name == "gif":
        return [lambda content: (strip_gif(content), ())]
    if format_name == "nifti":
        return [lambda content: (strip_nifti(content), ())]
    if format_name == "tiff":
        return ways_to_strip()
    return []


def _reads_the_same(path: Path, content: bytes) -> bool:
    import numpy as np

    from useg.data.images import read_header, read_image

    with tempfile.TemporaryDirectory(prefix="useg-strip-") as folder:
        # The suffix takes part in telling the format; the name itself does not.
        copy = Path(folder) / ("image" + "".join(path.suffixes[-2:]))
        copy.write_bytes(content)
        try:
            before, after = read_header(str(path)), read_header(str(copy))
            if replace(before, ref="", file_bytes=0) != replace(after, ref="", file_bytes=0):
                return False
            for a, b in ((before.palette, after.palette), (before.affine, after.affine)):
                if (a is None) != (b is None) or (a is not None and b is not None and not np.array_equal(a, b)):
                    return False
            if before.nbytes > _DECODED_AT_MOST:
                return True
            return np.array_equal(read_image(str(path)), read_image(str(copy)), equal_nan=before.dtype.kind == "f")
        except (UsegError, OSError):
            return False


def _orientation_alone(orientation: int) -> bytes:
    """An EXIF block that says how the picture is turned, and nothing else."""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def strip_jpeg(content: bytes, orientation: int = 1) -> bytes:
    """A JPEG with the segments that decoding needs; `orientation` is written anew unless it is 1.

    Raises:
        NotUnderstood: the segments do not follow one another.
    """
    if content[:2] != b"\xff\xd8":
        raise NotUnderstood("it does not begin like a JPEG")
    parts = [content[:2]]
    exif = b"Exif\0\0" + _orientation_alone(orientation)
    pending = struct.pack(">BBH", 0xFF, 0xE1, len(exif) + 2) + exif if orientation != 1 else b""
    at = 2
    while True:
        while content[at : at + 2] == b"\xff\xff":
            at += 1
        marker = content[at + 1 : at + 2]
        if content[at : at + 1] != b"\xff" or not marker:
            raise NotUnderstood(f"a marker was wanted at byte {at}")
        if marker == b"\xd9":
            return b"".join([*parts, b"\xff\xd9"])
        (length,) = struct.unpack_from(">H", content, at + 2)
        segment, code = content[at : at + 2 + length], marker[0]
        if code != 0xE0 and pending:
            parts.append(pending)
            pending = b""
        if not (0xE0 <= code <= 0xEF and not _kept_segment(code, segment)) and code != 0xFE:
            parts.append(segment)
        at += 2 + length
        if code == 0xDA:
            end = _NEXT_MARKER.search(content, at)
            if end is None:
                raise NotUnderstood("it ends without the marker of its end")
            parts.append(content[at : end.start()])
            at = end.start()


_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")


def _kept_segment(code: int, segment: bytes) -> bool:
    if code == 0xE2:
        return segment[4:16] == b"ICC_PROFILE\0"
    return code in _JPEG_KEPT and not segment[4:].startswith(b"JFXX")


def strip_png(content: bytes, orientation: int = 1) -> bytes:
    """A PNG with the chunks that say how it looks and how large its pixels are.

    Raises:
        NotUnderstood: the chunks do not follow one another.
    """
    from zlib import crc32

    at = 8
    parts = [content[:8]]
    while at < len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        chunk = content[at : at + 12 + length]
        if len(chunk) < 12 + length:
            raise NotUnderstood(f"the chunk at byte {at} is cut off")
        if not name[0] & 0x20 or name in _PNG_KEPT:
            parts.append(chunk)
        if name == b"IHDR" and orientation != 1:
            exif = _orientation_alone(orientation)
            parts.append(struct.pack(">I4s", len(exif), b"eXIf") + exif + struct.pack(">I", crc32(b"eXIf" + exif)))
        if name == b"IEND":
            return b"".join(parts)
        at += 12 + length
    raise NotUnderstood("it has no last chunk")


def strip_gif(content: bytes) -> bytes:
    """A GIF without comments and without what programs have put in; loops and colours stay.

    Raises:
        NotUnderstood: the blocks do not follow one another.
    """
    at = 13 + _colours_bytes(content[10])
    parts = [content[:at]]
    while at < len(content):
        start, sign = at, content[at]
        if sign == 0x3B:
            return b"".join([*parts, b";"])
        if sign == 0x2C:
            at = _after_blocks(content, at + 11 + _colours_bytes(content[at + 9]))
        elif sign == 0x21:
            at = _after_blocks(content, at + 2)
        else:
            raise NotUnderstood(f"a block was wanted at byte {at}")
        label = content[start + 1]
        if sign == 0x2C or label in (0xF9, 0x01) or (label == 0xFF and content[start + 3 : start + 14] in _GIF_KEPT):
            parts.append(content[start:at])
    raise NotUnderstood("it has no last block")


def _colours_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(content: bytes, at: int) -> int:
    while content[at]:
        at += content[at] + 1
    return at + 1


def strip_nifti(content: bytes) -> bytes:
    """A NIfTI file, compressed if it was, with its texts cleared and without header extensions.

    Raises:
        NotUnderstood: it is no NIfTI file in one piece.
    """
    import gzip

    compressed = content[:2] == b"\x1f\x8b"
    plain = gzip.decompress(content) if compressed else content
    little = plain[:4] in (b"\x5c\x01\0\0", b"\x1c\x02\0\0")
    order = "<" if little else ">"
    (size,) = struct.unpack_from(order + "i", plain)
    texts: _Fields
    if size == 348 and plain[344:348] == b"n+1\0":
        (offset,) = struct.unpack_from(order + "f", plain, 108)
        texts, offset_field = _NIFTI1_TEXTS, struct.pack(order + "f", 352)
        where = 108
    elif size == 540 and plain[4:8] == b"n+2\0":
        (offset,) = struct.unpack_from(order + "q", plain, 168)
        texts, offset_field = _NIFTI2_TEXTS, struct.pack(order + "q", 544)
        where = 168
    else:
        raise NotUnderstood("it is no NIfTI file with header and voxels in one")
    if not size + 4 <= offset <= len(plain) or offset != int(offset):
        raise NotUnderstood(f"its voxels are said to begin at byte {offset}")
    header = bytearray(plain[:size])
    for start, length in texts:
        header[start : start + length] = bytes(length)
    header[where : where + len(offset_field)] = offset_field
    stripped = bytes(header) + bytes(4) + plain[int(offset) :]
    named = compressed and content[3] & 0x1C  # gzip keeps a name, a comment or more of its own
    if stripped == plain and not named:
        return content
    return gzip.compress(stripped, compresslevel=6, mtime=0) if compressed else stripped
