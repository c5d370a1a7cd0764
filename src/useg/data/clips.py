"""Video clips whose frames are labelled, by mask files with a frame's number or by a stack of masks."""

from collections.abc import Sequence
from pathlib import Path

from useg.data.images import read_header
from useg.data.names import numbers, plain, words
from useg.data.reading import Sample
from useg.data.roles import File

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})


def pair_clips(root: Path, files: Sequence[File]) -> tuple[list[Sample], set[str], str]:
    """Samples of all labelled frames, the refs used, and the rule; clips without labels come whole.

    A mask belongs to a clip when its name begins with the clip's or a folder above it is called like the
    clip, or when there is one clip only. Frames count from 0; when the masks count from 1 to the number of
    frames, from 1.

    Raises:
        DataError: a clip cannot be read.
        MissingExtra: reading video needs the extra `video`.
    """
    clips = [file for file in files if file.suffix in VIDEO_SUFFIXES and file.words.role != "label"]
    masks = [file for file in files if file not in clips]
    samples: list[Sample] = []
    used: set[str] = set()
    labelled = 0
    for clip in clips:
        own = [mask for mask in masks if _belongs(mask, clip, only=len(clips) == 1)]
        length = _length(root, clip) if own else 0
        frames = _stack(root, own, length) or _numbered(own, clip, length)
        key = "/".join([*clip.folders, clip.stem])
        path = str(root / clip.ref)
        used.add(clip.ref)
        if not frames:
            samples.append(Sample(key, (path,), split=clip.split))
            continue
        labelled += 1
        for frame, (label, ref) in sorted(frames.items()):
            split = clip.split or label.split
            found = Sample(f"{key}/{frame}", (f"{path}#{frame}",), (str(root / ref),), group=key, split=split)
            samples.append(found)
            used.add(label.ref)
    frames_count = sum(bool(sample.labels) for sample in samples)
    rule = f"{labelled} of {len(clips)} clips have labels, for {frames_count} frames; a clip is a group."
    return samples, used, rule


def _belongs(mask: File, clip: File, *, only: bool) -> bool:
    names = {plain(clip.stem), clip.words.rest} - {""}
    stem = plain(mask.stem)
    if any(stem == name or stem.startswith(f"{name}_") or mask.words.rest == name for name in names):
        return True
    if any(plain(folder) in names or words(folder).rest in names for folder in mask.folders):
        return True
    return only and (mask.words.role == "label" or any(words(folder).role == "label" for folder in mask.folders))


def _length(root: Path, file: File) -> int:
    shape = read_header(str(root / file.ref)).shape
    return shape[1] if len(shape) == 4 else 1


def _stack(root: Path, masks: list[File], length: int) -> dict[int, tuple[File, str]]:
    """Every frame with its plane of a stack that has as many planes as the clip has frames."""
    for mask in masks:
        if length > 1 and len(masks) <= 2 and _length(root, mask) == length:
            return {frame: (mask, f"{mask.ref}#{frame}") for frame in range(length)}
    return {}


def _numbered(masks: list[File], clip: File, length: int) -> dict[int, tuple[File, str]]:
    """Frames by the last number of the mask's name, the clip's own name not counted."""
    found: dict[int, tuple[File, str]] = {}
    for mask in masks:
        stem = mask.stem[len(clip.stem) :] if mask.stem.startswith(clip.stem) else mask.stem
        said = numbers(stem)
        if said and said[-1] <= length:
            found.setdefault(said[-1], (mask, mask.ref))
    if found and max(found) == length:
        found = {frame - 1: mask for frame, mask in found.items() if frame > 0}
    return found
