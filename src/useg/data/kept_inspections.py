"""Inspections that a home keeps: whoever trains on the same view next can plan before its files have come."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from blake3 import blake3
from pydantic import ValidationError

from useg import __version__
from useg.data.fingerprint import SCHEMA, Fingerprint
from useg.data.inspect import Inspection
from useg.data.labels import LabelMapping
from useg.data.reading import Reading
from useg.errors import UsegError
from useg.home import refs
from useg.home.objects import Objects

Space = tuple[int, ...]
FORMAT = 1


@dataclass(frozen=True)
class KeptInspection:
    """What an inspection found.

    Attributes:
        mapping: how label values become classes.
        fingerprint: the measurements.
        repairs, warnings: what the user is told.
        spaces: size over space by key, of the samples that can be trained on.
        images: refs of images by key, where inspecting changed them (planes that are channels).
        measured: keys of the samples that were measured, where these stand for the others; (): all were.
    """

    mapping: LabelMapping
    fingerprint: Fingerprint
    repairs: tuple[str, ...]
    warnings: tuple[str, ...]
    spaces: Mapping[str, Space]
    images: Mapping[str, tuple[str, ...]]
    measured: tuple[str, ...] = ()


def to_keep(
    before: Reading, found: Inspection, spaces: Mapping[str, Space], measured: tuple[str, ...] = ()
) -> KeptInspection | None:
    """What is to be kept of an inspection; None where there were problems, or no labels.

    Args:
        before: the samples as they were given to the inspection.
        found: what it found.
        spaces, measured: as in `KeptInspection`.
    """
    if found.problems or found.mapping is None or found.fingerprint is None:
        return None
    known = {sample.key: sample.images for sample in before.samples}
    images = {sample.key: sample.images for sample in found.reading.samples if sample.images != known[sample.key]}
    repairs, warnings = tuple(found.repairs), tuple(found.warnings)
    return KeptInspection(found.mapping, found.fingerprint, repairs, warnings, spaces, images, measured)


class KeptInspections:
    """The inspections of one view in a home, by what else they depend on.

    What another release of useg measured is not taken, since the rules of measuring may differ. A home that cannot be
    written keeps nothing, and nobody is stopped by that.

    Args:
        objects: of the home.
        view: digest of the view.
        classes: text of the label mapping given by the user or with the version, if any.
    """

    def __init__(self, objects: Objects, view: str, classes: str | None) -> None:
        self._objects, self._about = objects, [view, classes or "", __version__, FORMAT, SCHEMA]

    def find(self) -> KeptInspection | None:
        """The inspection of the whole view, None where nobody has inspected it yet."""
        found = self._read(self._name("whole", ()))
        try:
            return (
                None
                if found is None
                else KeptInspection(
                    LabelMapping.model_validate(found["mapping"]),
                    Fingerprint.model_validate(found["fingerprint"]),
                    tuple(found["repairs"]),
                    tuple(found["warnings"]),
                    dict(zip(found["keys"], map(tuple, found["spaces"]), strict=True)),
                    {key: tuple(images) for key, images in found["images"].items()},
                    tuple(found.get("measured", ())),
                )
            )
        except (KeyError, TypeError, ValueError, ValidationError):
            return None

    def keep(self, found: KeptInspection) -> None:
        """Keep the inspection of the whole view."""
        content = {
            "mapping": found.mapping.model_dump(mode="json"),
            "fingerprint": found.fingerprint.model_dump(mode="json"),
            "repairs": found.repairs,
            "warnings": found.warnings,
            "keys": list(found.spaces),
            "spaces": list(found.spaces.values()),
            "images": found.images,
            "measured": found.measured,
        }
        self._write(self._name("whole", ()), content)

    def find_without(self, keys: Collection[str]) -> Fingerprint | None:
        """What was measured of all other samples than these."""
        found = self._read(self._name("without", keys))
        try:
            return None if found is None else Fingerprint.model_validate(found)
        except ValidationError:
            return None

    def keep_without(self, keys: Collection[str], fingerprint: Fingerprint) -> None:
        """Keep what was measured of all other samples than these."""
        self._write(self._name("without", keys), fingerprint.model_dump(mode="json"))

    def _name(self, what: str, keys: Collection[str]) -> str:
        digest = blake3(orjson.dumps([*self._about, what, sorted(keys)])).hexdigest()
        return f"inspections/{digest}"

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            entry = refs.read_ref(self._objects.store, name)
            content = None if entry is None else orjson.loads(self._objects.get(entry.record["to"]))
        except (UsegError, ValueError, KeyError):
            return None
        return content if isinstance(content, dict) else None

    def _write(self, name: str, content: dict[str, Any]) -> None:
        try:
            with self._objects.writer() as writer:
                digest = writer.put(orjson.dumps(content))
                writer.commit()
            refs.move_ref(self._objects.store, name, {"to": digest, "names": [digest]}, expected=0)
        except UsegError:
            return  # somebody else was first, or the home cannot be written
