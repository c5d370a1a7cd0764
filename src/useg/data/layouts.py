"""Folder conventions, understood by general rules: what is an image, what its label, what is left over.

The order of what decides: a pairs.csv; the nnU-Net layout; words in folder and file names (images, masks,
train ...); how the files look inside; else every file is an image without a label. Names are matched by the
whole stem first, then by what varies, then by number. What was taken, what else was possible and what is left
over is said.
"""

from dataclasses import replace
from pathlib import Path

from useg.data.array_files import is_pickled
from useg.data.assembling import Assembly, Locate, assemble, assemble_unlabelled, finish
from useg.data.choosing import choose
from useg.data.clips import VIDEO_SUFFIXES, pair_clips
from useg.data.containers import HDF5_SUFFIXES, files_inside
from useg.data.foreign import ways_out
from useg.data.images import SUFFIXES, is_image
from useg.data.listing import list_files
from useg.data.looks import Looks
from useg.data.names import words
from useg.data.nnunet import is_nnunet, read_nnunet
from useg.data.pairs import PAIRS_FILE, read_pairs
from useg.data.reading import Reading, Sample, natural_order
from useg.data.roles import File, as_file, group_files
from useg.errors import DataError, Problem

__all__ = ["Reading", "Sample", "read_layout"]

WAY_OUT = (
    "put images and label maps of the same names into two folders, images/ and labels/, or write a pairs.csv "
    "with the columns image and label"
)


def read_layout(root: Path, *, labels_needed: bool = False) -> Reading:
    """Read a folder, a pairs.csv or a single file as samples.

    Args:
        root: folder, `pairs.csv` (any name ending in .csv), or one image.
        labels_needed: refuse input in which no image has a label.

    Returns:
        All samples in natural order of their keys. Images without a label are samples too; those that should
        have had one are also named in `problems`. Refs begin with `root`.

    Raises:
        DataError: nothing is there, nothing can be read, a pairs.csv is wrong, or labels are needed and none
        found.
        MissingExtra: an HDF5 file or a video needs an optional dependency.
    """
    root = Path(root)
    if not root.exists():
        raise DataError(f"{root}: there is no such file or folder")
    reading = _read_folder(root) if root.is_dir() else _read_file(root)
    if labels_needed and not any(sample.labels for sample in reading.samples):
        count = len(reading.samples)
        raise DataError(f"{root}: {count} images, but no labels were found; {WAY_OUT}", reading.problems)
    return reading


def _read_file(path: Path) -> Reading:
    if path.suffix.casefold() == ".csv":
        return read_pairs(path)
    if not is_image(path):
        raise DataError(f"{path}: a folder, a pairs.csv or an image was wanted; this suffix is none that can be read")
    return replace(_read_names(path.parent, (path.name,)), root=str(path))


def _read_folder(root: Path) -> Reading:
    if (root / PAIRS_FILE).is_file():
        return replace(read_pairs(root / PAIRS_FILE), root=str(root))
    listing = list_files(root)
    if is_nnunet(listing.files):
        return read_nnunet(root)
    if not listing.files:
        raise DataError(f"{root}: the folder is empty; {WAY_OUT}")
    if not any(is_image(Path(path)) for path in listing.files):
        shown = ", ".join(listing.files[:3])
        what = f"none of its {len(listing.files)} files is an image that can be read (e.g. {shown})"
        raise DataError("; ".join([f"{root}: {what}", *ways_out(listing.files)]))
    return _read_names(root, listing.files)


def _read_names(root: Path, paths: tuple[str, ...]) -> Reading:
    """Read by names, and by looking inside where names do not tell."""
    pickled = [path for path in paths if path.casefold().endswith(".npy") and is_pickled(root / path)]
    files, clips, problems = _as_files(root, tuple(path for path in paths if path not in pickled))

    beginning = str(root / "x")[:-1]

    def locate(ref: str) -> str:
        return beginning + ref

    choice = choose(files, Looks(root)) if files else None
    if choice is not None and choice.matches:
        done = assemble(choice, locate)
        if choice.by_content:
            done.sentences.append("No words in the names say so: labels were told from images by their pixels.")
        alternatives = tuple(dict.fromkeys(choice.alternatives))
    elif clips:
        found = _read_clips(root, paths, [*files, *clips], problems)
        return replace(found, rule=" ".join([found.rule, *_left_pickled(pickled)]))
    else:
        done = _without_labels(files, locate)
        alternatives = ()
    if not done.samples:
        what = " ".join([f"{root}: no file in it can be used as an image.", *_left_pickled(pickled)])
        raise DataError(what.removesuffix("."), problems)
    samples = finish(done)
    rule = " ".join([*done.sentences, *_left_by_products(files, done.used), *_left_pickled(pickled)])
    left = _leftovers(paths, [*files, *clips], done.used)
    everything = (*problems, *done.problems)
    return Reading(str(root), samples, rule, alternatives, left, everything, done.hints)


def _left_pickled(paths: list[str]) -> list[str]:
    if not paths:
        return []
    what = "One .npy file holds" if len(paths) == 1 else f"{len(paths)} .npy files hold"
    return [f"{what} pickled Python objects, which are never loaded: left out (for instance {paths[0]})."]


def _left_by_products(files: list[File], used: set[str]) -> list[str]:
    unused = [file for file in files if file.ref not in used]
    left = [file.ref for file in unused if any(words(name).strength < 0 for name in (*file.folders, file.stem))]
    if not left:
        return []
    what = "One file is" if len(left) == 1 else f"{len(left)} files are"
    return [f"{what} left out, by name made from others and no label maps (for instance {left[0]})."]


def _without_labels(files: list[File], locate: Locate) -> Assembly:
    groups = group_files(files)
    labels = [group for group in groups if group.role == "label"]
    images = [group for group in groups if group.role != "label" and group.strength >= 0] or groups
    done = assemble_unlabelled(images, locate)
    count = len(done.samples)
    done.sentences.append(f"{count} images without labels." if count != 1 else "One image without a label.")
    if any(group in images for group in labels):
        return done
    for group in labels:
        for file in group.files:
            what = f"a label by its name, but no image goes with it (images: {images[0].place})"
            done.problems.append(Problem(locate(file.ref), what, "give both the same name, or write a pairs.csv"))
    return done


def _read_clips(root: Path, paths: tuple[str, ...], files: list[File], problems: list[Problem]) -> Reading:
    samples, used, rule = pair_clips(root, files)
    if not any(sample.labels for sample in samples):
        used |= {file.ref for file in files}
        known = {sample.images[0] for sample in samples}
        others = [file for file in files if str(root / file.ref) not in known]
        done = assemble_unlabelled(group_files(others), lambda ref: str(root / ref)) if others else Assembly()
        samples = [*samples, *finish(done)]
        rule = f"{len(samples)} images and clips without labels."
    ordered = tuple(sorted(samples, key=lambda sample: natural_order(sample.key)))
    return Reading(str(root), ordered, rule, (), _leftovers(paths, files, used), tuple(problems))


def _as_files(root: Path, paths: tuple[str, ...]) -> tuple[list[File], list[File], list[Problem]]:
    """Image files, video clips, and what is wrong with files that hold several data sets."""
    files: list[File] = []
    clips: list[File] = []
    problems: list[Problem] = []
    for path in paths:
        file = as_file(path)
        if file.suffix not in SUFFIXES:
            continue
        if file.suffix in VIDEO_SUFFIXES:
            clips.append(file)
        elif file.suffix in HDF5_SUFFIXES:
            inside, problem = files_inside(root, path)
            files.extend(inside)
            problems.extend([problem] if problem else [])
        else:
            files.append(file)
    return files, clips, problems


def _leftovers(paths: tuple[str, ...], files: list[File], used: set[str]) -> tuple[str, ...]:
    """Files of which nothing was used; data sets not used of a file that was."""
    containers = {file.container for file in files}
    left = [path for path in paths if path not in containers]
    left += [file.ref for file in files if file.ref not in used]
    return tuple(sorted(left, key=natural_order))
