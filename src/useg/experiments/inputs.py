"""What to predict: files, folders and refs from the command line as a list, with a name for each result."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath

from useg.data.headers import Header, split_ref
from useg.data.images import is_image, read_header, suffix_of
from useg.data.layouts import read_layout
from useg.data.reading import Reading, Sample
from useg.errors import DataError, InputError, Problem, UsegError, problems_of

__all__ = ["Input", "find_inputs"]

_SHOWN = 5


@dataclass(frozen=True)
class Input:
    """One image to predict.

    Attributes:
        refs: how to open it; several are channels in several files.
        name: folder and name of its results below the output folder, without a suffix.
        header: what its (first) file says.
    """

    refs: tuple[str, ...]
    name: PurePosixPath
    header: Header

    @property
    def ref(self) -> str:
        """The first ref, by which the image is named in messages."""
        return self.refs[0]

    @property
    def megapixels(self) -> float:
        """Size over space."""
        return prod(float(size) for size in self.header.space) / 1e6


Named = tuple[tuple[str, ...], PurePosixPath]


def find_inputs(inputs: Sequence[str | Path], out: Path, problems: list[Problem], notes: list[str]) -> list[Input]:
    """Every image that the inputs name; a folder is read like a data set, its label maps are no inputs.

    Results of a folder keep its sub-folders; those of files and refs lie directly in `out`. Two images that
    would get the same name (`a.png` and `a.tif`) get their suffix added (`a_png`, `a_tif`).

    Args:
        inputs: files, folders, `pairs.csv` files, or refs such as `file.h5#dataset`.
        out: where results go; files in it are results of earlier predictions and no inputs.
        problems: gets one entry for each input that cannot be opened.
        notes: gets a sentence on how a folder was read, and on files that were left out.

    Raises:
        InputError: nothing to predict was found, results would overwrite an input, or two images of
            different folders would have the same result.
    """
    named: list[Named] = []
    for given in dict.fromkeys(str(entry) for entry in inputs):
        path = Path(given)
        if path.is_dir() or (path.is_file() and path.suffix.lower() == ".csv"):
            named += _of_folder(path, out.resolve(), problems, notes)
        elif not split_ref(given)[0].exists():
            problems.append(Problem(given, "there is no such file or folder", "check the name"))
        else:
            named.append(((given,), PurePosixPath(_stem(given))))
    named = _told_apart(list(dict.fromkeys(named)))
    _refuse_equal_names(named)
    found = []
    for refs, name in named:
        try:
            found.append(Input(refs, name, _header(refs)))
        except UsegError as error:
            problems.extend(problems_of(error, refs[0]))
    _refuse_overwriting(found, out)
    if not found and not problems:
        inside = [str(path) for path in map(Path, inputs) if out.resolve().is_relative_to(path.resolve())]
        if inside and out.exists():
            raise InputError(
                f"no image to predict in {inside[0]} but those in {out}, where results go: choose another --out"
            )
        given = ", ".join(map(str, inputs)) or "nothing"
        raise InputError(f"no image to predict in {given}: name image files, or folders that hold some")
    return found


def _header(refs: tuple[str, ...]) -> Header:
    headers = [read_header(ref) for ref in refs]
    if len({header.space for header in headers}) > 1:
        sizes = [Problem(header.ref, f"size {' x '.join(map(str, header.space))}") for header in headers]
        raise DataError(f"the channels of {refs[0]} differ in size", sizes)
    return headers[0]


def _stem(ref: str) -> str:
    """The file's name without its suffix, and what stands after # as a part of it."""
    path, inside = split_ref(ref)
    stem = path.name[: -len(suffix_of(path))] if is_image(path) else path.name
    return f"{stem}_{inside.strip('/').replace('/', '_').replace('#', '_')}" if inside else stem


def _of_folder(root: Path, out: Path, problems: list[Problem], notes: list[str]) -> list[Named]:
    try:
        reading = read_layout(root)
    except DataError as error:
        # What has no layout may still hold images.
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and is_image(path)]
        if not files:
            empty = Problem(str(root), "there is no image in this folder that can be read")
            problems.extend(error.problems or [empty])
            return []
        reading = Reading(str(root), tuple(Sample(str(path), (str(path),)) for path in files), "")
    samples = [
        sample
        for sample in reading.samples
        if not _is_result(Path(split_ref(sample.images[0])[0]), out, root.resolve())
    ]
    labels = sum(len(sample.labels) for sample in samples)
    if labels:
        notes.append(f"{root}: {reading.rule} The {labels} label files are not predicted.")
    leftovers = [name for name in reading.leftovers if not _is_result(root / name, out, root.resolve())]
    if leftovers:
        more = f" and {len(leftovers) - _SHOWN} more" if len(leftovers) > _SHOWN else ""
        notes.append(f"{root}: left out: {', '.join(leftovers[:_SHOWN])}{more}")
    in_file = Counter(split_ref(sample.images[0])[0] for sample in samples)
    base = root if root.is_dir() else root.parent
    return [(sample.images, _name(sample, base, in_file)) for sample in samples]


def _is_result(path: Path, out: Path, root: Path) -> bool:
    """Whether a file lies in the output folder, unless all inputs do."""
    return path.resolve().is_relative_to(out) and not root.is_relative_to(out)


def _name(sample: Sample, base: Path, in_file: Counter[Path]) -> PurePosixPath:
    if len(sample.images) > 1:
        return PurePosixPath(sample.key)
    path, _ = split_ref(sample.images[0])
    folder = path.parent.relative_to(base) if path.is_relative_to(base) else Path()
    return PurePosixPath(folder.as_posix()) / _stem(str(path) if in_file[path] == 1 else sample.images[0])


def _told_apart(named: list[Named]) -> list[Named]:
    counts = Counter(name for _, name in named)
    return [
        (refs, name.with_name(f"{name.name}_{suffix_of(split_ref(refs[0])[0])[1:].replace('.', '_')}"))
        if counts[name] > 1
        else (refs, name)
        for refs, name in named
    ]


def _refuse_equal_names(named: list[Named]) -> None:
    counts = Counter(name for _, name in named)
    equal = [f"{name}: {refs[0]}" for refs, name in named if counts[name] > 1]
    if equal:
        raise InputError(
            "the results of these images would have the same name; give their common folder instead, or "
            "predict them into different folders:\n  " + "\n  ".join(equal)
        )


def _refuse_overwriting(found: Sequence[Input], out: Path) -> None:
    paths = [split_ref(ref)[0].resolve() for one in found for ref in one.refs]
    inputs = {path.parent / _stem(str(path)): path for path in paths}
    for one in found:
        same = inputs.get((out / one.name).parent.resolve() / one.name.name)
        if same is not None:
            raise InputError(f"the result of {one.ref} could overwrite {same}: choose another --out than {out}")
