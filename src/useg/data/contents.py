"""What identifies a sample whatever it is called: a digest of its image files, and one of its label files."""

from collections.abc import Iterable

from blake3 import blake3

from useg.data.manifest_rows import FileRef, Row

LABELS = ("label", "objects", "region")


def content_digests(row: Row, block: str = "") -> dict[str, str]:
    """Digests that stay when a sample or its files get other names: {"image", "labels"}.

    They are BLAKE3 of role, file digest and part (such as a frame's number) of each file, in order,
    and of the block that the sample is of them.
    """
    return {"image": _digest(row, ("image",), block), "labels": _digest(row, LABELS, block)}


def _digest(row: Row, roles: Iterable[str], block: str) -> str:
    lines = [f"{role} {_told(file)}\n" for role in roles for file in row.files.get(role, ())]
    return str(blake3("".join([*lines, block]).encode("utf-8", "surrogateescape")).hexdigest())


def _told(file: FileRef) -> str:
    """A file's content, without its path."""
    return f"{file.digest} {file.part}"


__all__ = ["content_digests"]
