"""Lays a version's original files into a folder, byte for byte; what lies there already is not written again."""

from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from useg.data.checkout_plan import Plan, make_plan, wanted_files
from useg.data.commits import Contents, Version
from useg.data.folder_notes import OWN_FOLDER, Notes, read_notes, write_notes
from useg.data.known_files import KnownFiles
from useg.data.laying import laying
from useg.data.mapping_file import MAPPING_FILE
from useg.data.pairs import PAIRS_FILE
from useg.data.pairs_text import pairs_text
from useg.data.progress import Progress
from useg.data.statistics import rows_where
from useg.data.versions import Dataset
from useg.errors import DataError
from useg.home.folder import writing
from useg.home.locks import locked
from useg.home.objects import Objects


@dataclass(frozen=True)
class CheckedOut:
    """What a checkout did.

    Attributes:
        version: what lies there now.
        samples: how many samples.
        written: files that were written.
        kept: files that lay there already.
        replaced: files written where another content lay.
        removed: files of an earlier checkout that were taken away.
        bytes_written: bytes of the files written.
    """

    version: Version
    samples: int
    written: int
    kept: int
    replaced: int
    removed: int
    bytes_written: int


def checkout(
    dataset: Dataset,
    ref: str,
    folder: Path,
    *,
    where: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> CheckedOut:
    """Lay the files of a version into a folder, with a pairs.csv that gives the same samples.

    It can be repeated after any interruption. Files that an earlier checkout wrote and that are not wanted
    any more are removed, if they are as they were written.

    Args:
        dataset: the data set.
        ref: the version.
        folder: where to; made if it is not there.
        where: take only the samples that this query chooses.
        force: write also over files that were changed and that no version has.
        progress: told how many bytes are done.

    Raises:
        DataError: something is in the way (then nothing was written), or files cannot be had.
    """
    version = dataset.resolve(ref)
    contents = dataset.contents(version)
    rows = rows_where(dataset, contents, where)
    wanted = wanted_files(rows)
    texts = {PAIRS_FILE: pairs_text(rows).encode()}
    if contents.mapping is not None:
        texts[MAPPING_FILE] = contents.mapping.encode()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        own = folder / OWN_FOLDER
        if own.is_symlink():
            raise DataError(f"{own} is a link; nothing was written. Remove it")
        own.mkdir(exist_ok=True)
    with locked(own / "lock"):
        before, known = read_notes(folder) or Notes(), KnownFiles(folder)
        ours = {**_recorded_mapping(dataset, folder), **before.files}
        plan = make_plan(folder, wanted, texts, dataset.objects, known, ours, force=force)
        files = {path: [digest] for path, digest in {**_digests(wanted), **_digests_of(texts)}.items()}
        after = Notes(dataset.name, version.commit, where, files)
        if before != after or plan.fetch or plan.texts or plan.remove:
            _carry_out(plan, folder, contents, dataset.objects, before, after, progress)
        known.save()
    size = sum(length for _, length in plan.fetch.values()) + sum(map(len, plan.texts.values()))
    written = len(plan.fetch) + len(plan.texts)
    return CheckedOut(version, len(rows), written, len(plan.kept), len(plan.replaced), len(plan.remove), size)


def _recorded_mapping(dataset: Dataset, folder: Path) -> dict[str, list[str]]:
    """The digest of the folder's classes.toml, by its path, if a version has what it says."""
    try:
        content = (folder / MAPPING_FILE).read_bytes()
        text = (folder / MAPPING_FILE).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return {}
    known = any(version.mapping == text for version in dataset.versions().values())
    return {MAPPING_FILE: [blake3(content).hexdigest()]} if known else {}


def _digests(wanted: dict[str, tuple[str, int]]) -> dict[str, str]:
    return {path: digest for path, (digest, _) in wanted.items()}


def _digests_of(texts: dict[str, bytes]) -> dict[str, str]:
    return {path: blake3(text).hexdigest() for path, text in texts.items()}


def _carry_out(
    plan: Plan,
    folder: Path,
    contents: Contents,
    objects: Objects,
    before: Notes,
    after: Notes,
    progress: Progress | None,
) -> None:
    """Write what the plan says; the notes are right at every moment."""
    own = folder / OWN_FOLDER
    paths = {*before.files, *after.files}
    both = {path: sorted({*before.files.get(path, ()), *after.files.get(path, ())}) for path in paths}
    write_notes(folder, Notes(files=both))
    with writing(folder), laying(folder, own / "parts") as lay:
        lay.fetch(plan.fetch, contents.links, objects, progress)
        # pairs.csv comes after all the files that it names, and before those go that it does not name any more
        for path, text in sorted(plan.texts.items()):
            lay.write(path, [text])
        for path in plan.remove:
            _remove(folder, path)
    write_notes(folder, after)


def _remove(folder: Path, path: str) -> None:
    place = folder / path
    place.unlink(missing_ok=True)
    for parent in list(place.relative_to(folder).parents)[:-1]:
        try:
            (folder / parent).rmdir()
        except OSError:  # not empty
            break
