"""Takes from TIFF files the tags that could name a person, in place: no offset moves, no pixel is touched."""

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_DESCRIPTION = 270
_SUB_IFDS = 330
_DROPPED = frozenset(
    {269, 271, 272, 285, 305, 306, 315, 316, 700, 32781, 33432, 33723, 34377, 37510, 50708, 50735, 50838, 50839}
    | set(range(36864, 37522))  # EXIF tags of files that put them into the image's own directory
    | set(range(40091, 40096))
    | {42016, 42032, 42033, 42036, 42037}
)
"""Names, makers, programs, dates, XMP, IPTC, Photoshop, comments, serial numbers, notes of ImageJ."""

_DROPPED_DIRECTORIES = frozenset({34665, 34853, 40965})
_HARMLESS = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 270, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284}
    | {286, 287, 288, 289, 290, 291, 292, 293, 296, 297, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332}
    | {338, 339, 340, 341, 342, 347, 512, 513, 514, 529, 530, 531, 532, 32997, 34675, 42112, 42113}
    | {33550, 33922, 34264, 34735, 34736, 34737}
)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MOST_DIRECTORIES = 100_000
_IMAGEJ_KEYS = frozenset(
    {"ImageJ", "images", "channels", "slices", "frames", "hyperstack", "mode", "unit", "yunit", "zunit"}
    | {"spacing", "finterval", "fps", "loop", "min", "max"}
)
_SHAPED_KEYS = ("shape", "axes", "spacing", "unit")
_OME_KEPT: dict[str, tuple[str, ...]] = {
    "OME": (),
    "Image": ("ID",),
    "Pixels": (
        *("ID", "DimensionOrder", "Type", "SizeX", "SizeY", "SizeZ", "SizeC", "SizeT", "BigEndian", "Interleaved"),
        *("SignificantBits", "PhysicalSizeX", "PhysicalSizeY", "PhysicalSizeZ"),
        *("PhysicalSizeXUnit", "PhysicalSizeYUnit", "PhysicalSizeZUnit"),
    ),
    "Channel": ("ID", "SamplesPerPixel", "Color"),
    "TiffData": ("IFD", "PlaneCount", "FirstZ", "FirstC", "FirstT"),
}

Reduce = Callable[[bytes], bytes]


class NotUnderstood(Exception):
    """The container is not built as its format says."""


@dataclass(frozen=True)
class _Form:
    """How numbers of one file are laid out."""

    order: str
    big: bool

    @property
    def count(self) -> str:
        return self.order + ("Q" if self.big else "H")

    @property
    def offset(self) -> str:
        return self.order + ("Q" if self.big else "I")

    @property
    def entry_bytes(self) -> int:
        return 20 if self.big else 12


@dataclass(frozen=True)
class _Entry:
    code: int
    kind: int
    count: int
    raw: bytes
    start: int  # of the values, wherever they lie
    inline: bool

    @property
    def nbytes(self) -> int:
        return self.count * _SIZES.get(self.kind, 1)


def ways_to_strip() -> list[Callable[[bytes], tuple[bytes, tuple[str, ...]]]]:
    """Without any description; with what its axes and spacing need; with the description as it is."""
    return [
        lambda content: strip_tiff(content, lambda text: b""),
        lambda content: strip_tiff(content, reduce_description),
        lambda content: strip_tiff(content, None),
    ]


def strip_tiff(content: bytes, reduce: Reduce | None) -> tuple[bytes, tuple[str, ...]]:
    """The file without identifying tags, and what was left in it.

    Args:
        content: the file.
        reduce: makes of a description what may stay; None keeps descriptions.

    Raises:
        NotUnderstood: the directories are not what TIFF says.
    """
    data = bytearray(content)
    form, first = _begin(content)
    left: set[str] = set()
    for at in _directories(data, form, first):
        entries, _, end = _read(data, form, at)
        kept = []
        for entry in entries:
            if entry.code in _DROPPED:
                _clear(data, entry)
            elif entry.code in _DROPPED_DIRECTORIES:
                _clear_directory(data, form, _numbers(data, form, entry)[0])
            elif entry.code == _DESCRIPTION and reduce is not None:
                if _rewrite(data, entry, reduce):
                    kept.append(entry)
            else:
                if entry.code == _DESCRIPTION:
                    left.add("its description is needed to read it, and was kept")
                elif entry.code not in _HARMLESS:
                    left.add(f"the tag {entry.code} of its maker was kept")
                kept.append(entry)
        _write(data, form, at, kept, entries, end)
    return bytes(data), tuple(sorted(left))


def _begin(content: bytes) -> tuple[_Form, int]:
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None:
        raise NotUnderstood("it does not begin like a TIFF")
    (version,) = struct.unpack_from(order + "H", content, 2)
    form = _Form(order, big=version == 43)
    (first,) = struct.unpack_from(form.offset, content, 8 if form.big else 4)
    return form, int(first)


def _directories(data: bytearray, form: _Form, first: int) -> Iterator[int]:
    """Where the directories of images begin, each once; read before it is changed."""
    waiting, seen = [first], set[int]()
    while waiting:
        at = waiting.pop()
        if at == 0 or at in seen:
            continue
        if len(seen) >= _MOST_DIRECTORIES:
            raise NotUnderstood(f"it has more than {_MOST_DIRECTORIES} directories")
        seen.add(at)
        entries, following, _ = _read(data, form, at)
        waiting.append(following)
        for entry in entries:
            if entry.code == _SUB_IFDS:
                waiting.extend(_numbers(data, form, entry))
        yield at


def _read(data: bytearray, form: _Form, at: int) -> tuple[list[_Entry], int, int]:
    """The entries of a directory, where the next one is, and where this one ends."""
    (count,) = struct.unpack_from(form.count, data, at)
    start = at + struct.calcsize(form.count)
    end = start + count * form.entry_bytes
    (following,) = struct.unpack_from(form.offset, data, end)
    room = 8 if form.big else 4
    entries = []
    for place in range(start, end, form.entry_bytes):
        code, kind, number = struct.unpack_from(form.order + ("HHQ" if form.big else "HHI"), data, place)
        values = place + form.entry_bytes - room
        inline = number * _SIZES.get(kind, 1) <= room
        if not inline:
            (values,) = struct.unpack_from(form.offset, data, values)
            if values + number * _SIZES.get(kind, 1) > len(data):
                raise NotUnderstood(f"the values of its tag {code} lie beyond its end")
        entries.append(_Entry(code, kind, number, bytes(data[place : place + form.entry_bytes]), values, inline))
    return entries, int(following), end + struct.calcsize(form.offset)


def _write(data: bytearray, form: _Form, at: int, kept: list[_Entry], entries: list[_Entry], end: int) -> None:
    """Write a directory that has lost entries where it was; what becomes free is cleared."""
    if len(kept) == len(entries):
        return
    following = data[end - struct.calcsize(form.offset) : end]
    content = struct.pack(form.count, len(kept)) + b"".join(entry.raw for entry in kept) + following
    data[at:end] = content + bytes(end - at - len(content))


def _numbers(data: bytearray, form: _Form, entry: _Entry) -> tuple[int, ...]:
    letter = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(entry.kind)
    if letter is None or not entry.count:
        raise NotUnderstood(f"its tag {entry.code} names no directory")
    return struct.unpack_from(f"{form.order}{entry.count}{letter}", data, entry.start)


def _clear(data: bytearray, entry: _Entry) -> None:
    if not entry.inline:
        data[entry.start : entry.start + entry.nbytes] = bytes(entry.nbytes)


def _clear_directory(data: bytearray, form: _Form, at: int) -> None:
    if at == 0:
        return
    entries, _, end = _read(data, form, at)
    for entry in entries:
        if entry.code in _DROPPED_DIRECTORIES:
            _clear_directory(data, form, _numbers(data, form, entry)[0])
        _clear(data, entry)
    data[at:end] = bytes(end - at)


def _rewrite(data: bytearray, entry: _Entry, reduce: Reduce) -> bool:
    """Put the reduced text where the text was; False where nothing of it is left."""
    text = reduce(bytes(data[entry.start : entry.start + entry.nbytes]).rstrip(b"\0"))
    if len(text) >= entry.nbytes and text:
        raise NotUnderstood("its description does not become shorter")
    if text or not entry.inline:
        data[entry.start : entry.start + entry.nbytes] = text.ljust(entry.nbytes, b"\0")
    return bool(text)


def reduce_description(text: bytes) -> bytes:
    """Of a description, the axes and the spacing that ImageJ, tifffile or OME have put there.

    >>> reduce_description(b"ImageJ=1.53\\nslices=4\\nInfo=Jane Doe")
    b'ImageJ=1.53\\nslices=4\\n'
    """
    if text.startswith(b"ImageJ="):
        lines = [line for line in text.split(b"\n") if line.partition(b"=")[0].decode("latin-1") in _IMAGEJ_KEYS]
        return b"\n".join([*lines, b""])
    if text.startswith(b"{"):
        said: dict[str, Any] = json.loads(text)
        return json.dumps({key: said[key] for key in _SHAPED_KEYS if key in said}).encode()
    if text.rstrip().endswith(b"OME>"):
        return _reduce_ome(text)
    return b""


def _reduce_ome(text: bytes) -> bytes:
    from xml.etree import ElementTree

    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise NotUnderstood("its description declares entities")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise NotUnderstood(f"its description is no XML: {error}") from error
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""

    def reduce(element: Any) -> Any:
        kept = ElementTree.Element(element.tag)
        wanted = _OME_KEPT[element.tag.removeprefix(space)]
        kept.attrib.update({name: value for name, value in element.attrib.items() if name in wanted})
        kept.extend(reduce(child) for child in element if child.tag.removeprefix(space) in _OME_KEPT)
        return kept

    if root.tag.removeprefix(space) not in _OME_KEPT:
        raise NotUnderstood("its description is XML, but not that of OME")
    if space:
        ElementTree.register_namespace("", space[1:-1])
    written: bytes = ElementTree.tostring(reduce(root), encoding="utf-8", xml_declaration=False)
    return b'<?xml version="1.0" encoding="UTF-8"?>' + written
