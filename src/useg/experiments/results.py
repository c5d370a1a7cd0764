"""What a prediction leaves behind: labels, probabilities, instances, overlay of one file, as they come."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any

import numpy as np

from useg.arrays import Instances, Labels, Probabilities
from useg.data.headers import Header
from useg.data.labels import LabelMapping
from useg.data.writing import MapWriter, map_suffix, open_map
from useg.errors import ResourceError
from useg.experiments.overlay_files import OverlayClip, OverlayFile, OverlayPicture
from useg.segmentation.blocks import Joins, label_blocks
from useg.segmentation.instances import Mode, SeparationParameters, class_probabilities, separate, without_small
from useg.segmentation.membranes import CellParameters, cell_regions
from useg.segmentation.tiling import Band

__all__ = ["FOLDERS", "Blocks", "Decision", "Results", "Wanted", "class_map", "plan_blocks"]

FOLDERS = {"probabilities": "probabilities", "instances": "instances", "overlay": "overlays"}
"""Folders below the output folder for what is not the label map."""

_PIECE_PX = 2**20
_SEPARATION_BYTES_PER_PX = 160


@dataclass(frozen=True)
class Wanted:
    """Which results are written beside the label map."""

    probabilities: bool = False
    instances: bool = False
    overlay: bool = False


@dataclass(frozen=True)
class Decision:
    """How activated outputs become classes and objects.

    Attributes:
        num_classes: background included.
        mode: how objects are kept apart.
        threshold: with two classes, the least probability of class 1; None takes the likelier class.
        separation: parameters of the separation of objects.
        cells: where membranes keep objects apart, how cells between them are found; None elsewhere.
    """

    num_classes: int
    mode: Mode
    threshold: float | None
    separation: SeparationParameters
    cells: CellParameters | None = None

    @property
    def only_components(self) -> bool:
        """Whether objects are components of the mask, so that a block sees of them what the whole image does."""
        return self.cells is None and self.mode in ("none", "weights") and self.separation.erosion_px == 0

    @property
    def min_score(self) -> float:
        """The least score of an object; cells between membranes have none."""
        return 0.0 if self.cells is not None else self.separation.min_score

    def objects(self, outputs: np.ndarray) -> Instances:
        """Separate objects of any size from activated outputs; membranes are 0."""
        if self.cells is None:
            every = replace(self.separation, min_size_px=0, min_score=0.0)
            return separate(outputs, self.num_classes, self.mode, parameters=every)
        regions = cell_regions(outputs[1], self.cells)
        inside = class_map(outputs, self.threshold) == self.cells.cell_class
        return without_small(np.where(inside, regions, np.int32(0)), 1)


@dataclass(frozen=True)
class Blocks:
    """How objects of a large image are separated.

    Attributes:
        side_px: of a block.
        overlap_px: what neighbours share at least.
        peak_bytes: what this needs at most.
    """

    side_px: int
    overlap_px: int
    peak_bytes: int


def class_map(probabilities: Probabilities, threshold: float | None) -> Labels:
    """The likeliest class per pixel; of two classes, the second where it reaches the threshold."""
    chosen: np.ndarray
    if threshold is not None and probabilities.shape[0] == 2:
        chosen = probabilities[1] >= threshold
    else:
        chosen = probabilities.argmax(axis=0)
    return chosen.astype(np.uint8)


class Results:
    """The files of one input; a context manager: whatever is not complete at its end is removed.

    For a picture or volume call `write` once; for a stack predicted plane by plane, once a plane.

    Attributes:
        paths: where the files are in the end, None for those that are not wanted.
    """

    def __init__(
        self,
        source: Header,
        name: PurePosixPath,
        out: Path,
        *,
        wanted: Wanted,
        decision: Decision,
        mapping: LabelMapping,
        by_plane: bool,
    ) -> None:
        self._wanted, self._decision, self._mapping, self._by_plane = wanted, decision, mapping, by_plane
        self._files = ExitStack()
        self._waiting: dict[str, list[np.ndarray]] = {}
        self._objects = 0
        self._planes = 0
        probe = mapping.decode(np.zeros((1,) * len(source.space), np.uint8))
        channels = probe.shape[0] if probe.ndim > len(source.space) else 1
        self.paths: dict[str, Path | None] = dict.fromkeys(("labels", *FOLDERS))
        kinds: list[tuple[str, Any, int]] = [("labels", probe.dtype, channels)]
        kinds += [("probabilities", np.float16, decision.num_classes)] if wanted.probabilities else []
        kinds += [("instances", np.int32, 1)] if wanted.instances else []
        self._writers: dict[str, MapWriter] = {}
        for kind, dtype, count in kinds:
            path = _place(out, kind, name, map_suffix(source, dtype, count))
            palette = mapping.writing_palette if kind == "labels" else None
            self._writers[kind] = open_map(path, source=source, dtype=dtype, channels=count, palette=palette)
            self.paths[kind] = self._writers[kind].path
        self._overlay: OverlayFile | None = None
        if wanted.overlay:
            clip = by_plane and source.format == "video"
            path = self.paths["overlay"] = _place(out, "overlay", name, ".mp4" if clip else ".png")
            if clip:
                self._overlay = OverlayClip(path, source, mapping, objects=wanted.instances)
            else:
                self._overlay = OverlayPicture(path, source.space, mapping, objects=wanted.instances)

    def __enter__(self) -> "Results":
        with ExitStack() as files:
            for writer in self._writers.values():
                files.enter_context(writer)
            if self._overlay is not None:
                files.enter_context(self._overlay)
            self._files = files.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def see(self, first: int, band: np.ndarray) -> None:
        """Shows the overlay pixels of the image, each row once, before `write` is given what they became."""
        if self._overlay is not None:
            self._overlay.image(first, band)

    def write(self, bands: Iterator[Band], space: Sequence[int], blocks: Blocks | None = None) -> None:
        """Writes all results of one field from the bands of its averaged, activated outputs.

        Args:
            bands: of the whole field, in order.
            space: its pixels along each axis.
            blocks: how objects are separated, where instances are wanted.
        """
        passing = self._passing(bands)
        if self._wanted.instances and blocks is not None:
            self._write_instances(passing, tuple(space), blocks)
        for _ in passing:
            pass
        for kind, parts in self._waiting.items():
            self._store(kind, self._planes, np.concatenate(parts, axis=1)[:, None])
        self._waiting = {}
        self._planes += 1

    def _passing(self, bands: Iterator[Band]) -> Iterator[Band]:
        """Writes labels and probabilities of bands on their way to the separation of objects."""
        for first, band in bands:
            step = max(1, _PIECE_PX // max(1, prod(band.shape[2:])))
            for start in range(0, band.shape[1], step):
                piece = np.ascontiguousarray(band[:, start : start + step])
                chosen = class_probabilities(piece, self._decision.num_classes, self._decision.mode)
                classes = class_map(chosen, self._decision.threshold)
                stored = self._mapping.decode(classes)
                self._put("labels", first + start, stored if stored.ndim > classes.ndim else stored[None])
                self._put("classes", first + start, classes[None])
                if self._wanted.probabilities:
                    self._put("probabilities", first + start, chosen.astype(np.float16))
            yield first, band

    def _put(self, kind: str, first: int, values: np.ndarray) -> None:
        """Stores rows of a picture or planes of a volume; rows of a plane wait for the rest of it."""
        if self._by_plane:
            self._waiting.setdefault(kind, []).append(values)
        else:
            self._store(kind, first, values)

    def _store(self, kind: str, first: int, values: np.ndarray) -> None:
        if kind in self._writers:
            self._writers[kind].write(values)
        if self._overlay is not None and kind == "classes":
            self._overlay.classes(first, values)
        if self._overlay is not None and kind == "instances":
            self._overlay.instances(first, values)

    def _write_instances(self, bands: Iterator[Band], space: tuple[int, ...], blocks: Blocks) -> None:
        """Two passes: provisional ids to a nameless file, then final ids from it."""
        # Without a watershed two views of an object differ only by what lies outside of one of them.
        joins = Joins(0.0 if self._decision.only_components else 0.5)
        folder = self._writers["instances"].path.parent
        side, overlap = blocks.side_px, blocks.overlap_px
        with tempfile.TemporaryFile(dir=folder) as waiting:
            for _, rows in label_blocks(bands, space, self._decision.objects, joins, block_px=side, overlap_px=overlap):
                _append(waiting, rows, folder)
            for _ in bands:  # to its end, where it lets go of what it holds
                pass
            lookup = joins.lookup(self._decision.separation.min_size_px, self._decision.min_score)
            lookup = np.where(lookup > 0, lookup + np.int32(self._objects), 0).astype(np.int32)
            waiting.seek(0)
            width = prod(space[1:])
            step = max(1, _PIECE_PX // width)
            for first in range(0, space[0], step):
                count = min(step, space[0] - first)
                ids = np.frombuffer(waiting.read(4 * count * width), np.int32).reshape(count, *space[1:])
                self._put("instances", first, lookup[ids][None])
        # Planes of a stack are separated one by one; an id stands for one object in all of them.
        self._objects = max(self._objects, int(lookup.max(initial=0)))


def _place(out: Path, kind: str, name: PurePosixPath, suffix: str) -> Path:
    return out / FOLDERS.get(kind, "") / name.parent / f"{name.name}{suffix}"


def _append(file: IO[bytes], rows: np.ndarray, folder: Path) -> None:
    try:
        file.write(np.ascontiguousarray(rows, np.int32).data)
    except OSError as error:
        raise ResourceError(f"cannot write in {folder}: {error.strerror or error}") from error


def plan_blocks(space: Sequence[int], outputs: int, budget_bytes: int) -> Blocks:
    """The largest blocks for separating the objects of an image within a budget.

    Raises:
        ResourceError: the smallest block does not fit; the text names what it needs.
    """
    volume = len(space) == 3
    inner = prod(space[1:])
    need = 0
    for side in (256, 192, 128, 96) if volume else (4096, 2048, 1024, 512):
        rows = min(side, space[0])
        pixels = prod(min(side, size) for size in space)
        # Bands collect until a row of blocks is complete, and are joined to one array.
        need = 2 * min(2 * rows, space[0]) * inner * outputs * 4
        need += 3 * rows * inner * 4 + pixels * _SEPARATION_BYTES_PER_PX
        if need <= budget_bytes:
            return Blocks(side, max(side // 8, 32 if volume else 128), need)
    raise ResourceError(
        f"separating the objects of an image of {' x '.join(map(str, space))} pixels needs {need / 1e6:.0f} "
        f"MB beside prediction; the memory limit leaves {max(budget_bytes, 0) / 1e6:.0f} MB for it. Raise it "
        f"by {(need - budget_bytes) / 0.6e6:.0f} MB or more"
    )
