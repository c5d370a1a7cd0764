"""What to predict: files, folders and refs from the command line as a list, with a name for each result."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from useg.data.headers import Header, split_ref
from useg.data.images import is_image, read_header, suffix_of
from useg.errors import DataError, InputError, Problem, UsegError

__all__ = ["Input", "find_inputs"]


@dataclass(frozen=True)
class Input:
    """One image to predict.

    Attributes:
        ref: how to open it.
        name: folder and name of its results below the output folder, without a suffix.
        header: what the file says.
    """

    ref: str
    name: PurePosixPath
    header: Header


def find_inputs(
    inputs: Sequence[str | Path], out: Path, problems: list[Problem], left_out: list[str]
) -> list[Input]:
    """Every image that the inputs name; folders are searched with all below them.

    Results of a folder keep its sub-folders; those of files and refs lie directly in `out`. Two images that
    would get the same name (`a.png` and `a.tif`) get their suffix added (`a_png`, `a_tif`).

    Args:
        inputs: files, folders, or refs such as `file.h5#dataset`.
        out: where results go; files in it are results of earlier predictions and no inputs.
        problems: gets one entry for each input that cannot be opened.
        left_out: gets the files of folders that are no images by their suffix.

    Raises:
        InputError: nothing to predict was found, results would overwrite an input, or two images of
            different folders would have the same result.
    """
    named: list[tuple[str, PurePosixPath]] = []
    for given in dict.fromkeys(str(entry) for entry in inputs):
        named += _expanded(given, out, left_out, problems)
    named = list(dict.fromkeys(named))
    _refuse_equal_names(named := _told_apart(named))
    found = []
    for ref, name in named:
        try:
            header = read_header(ref)
        except UsegError as error:
            problems.extend(error.problems if isinstance(error, DataError) and error.problems else [])
            if not (isinstance(error, DataError) and error.problems):
                problems.append(Problem(ref, str(error)))
            continue
        found.append(Input(ref, name, header))
    _refuse_overwriting(found, out)
    if not found and not problems:
        raise InputError(
            f"no image to predict in {', '.join(map(str, inputs)) or 'nothing'}: name image files, or "
            "folders that hold some"
        )
    return found


def _expanded(
    given: str, out: Path, left_out: list[str], problems: list[Problem]
) -> list[tuple[str, PurePosixPath]]:
    root = Path(given)
    if not root.is_dir():
        path, inside = split_ref(given)
        if not path.exists():
            problems.append(Problem(given, "there is no such file or folder", "check the name"))
            return []
        stem = path.name[: -len(suffix_of(path))] if is_image(path) else path.name
        extra = "_" + inside.replace("/", "_").replace("#", "_").strip("_") if inside else ""
        return [(given, PurePosixPath(stem + extra))]
    result = []
    results_of_before = out.resolve()
    for path in sorted(root.rglob("*"), key=lambda entry: entry.relative_to(root).parts):
        parts = path.relative_to(root).parts
        if any(part.startswith(".") for part in parts) or not path.is_file():
            continue
        if path.resolve().is_relative_to(results_of_before) and not root.resolve().is_relative_to(
            results_of_before
        ):
            continue
        if not is_image(path):
            left_out.append(str(path))
            continue
        relative = PurePosixPath(*parts)
        result.append((str(path), relative.with_name(path.name[: -len(suffix_of(path))])))
    return result


def _told_apart(named: list[tuple[str, PurePosixPath]]) -> list[tuple[str, PurePosixPath]]:
    counts = Counter(name for _, name in named)
    return [
        (ref, name.with_name(f"{name.name}_{suffix_of(split_ref(ref)[0])[1:].replace('.', '_')}"))
        if counts[name] > 1
        else (ref, name)
        for ref, name in named
    ]


def _refuse_equal_names(named: list[tuple[str, PurePosixPath]]) -> None:
    counts = Counter(name for _, name in named)
    equal = [f"{name}: {ref}" for ref, name in named if counts[name] > 1]
    if equal:
        raise InputError(
            "the results of these images would have the same name; give their common folder instead, or "
            "predict them into different folders:\n  " + "\n  ".join(equal)
        )


def _refuse_overwriting(found: Sequence[Input], out: Path) -> None:
    folder = out.resolve()
    for one in found:
        path = split_ref(one.ref)[0].resolve()
        if path.parent == (folder / one.name).parent and path.name.startswith(one.name.name):
            raise InputError(f"the result of {one.ref} could overwrite it: choose another --out than {out}")
