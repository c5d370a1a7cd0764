"""Adds a folder to a data set: every file is digested once, and what the home lacks is stored."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from useg.data.commits import Contents, Links, Version
from useg.data.fields import Value, free_names, shown, typed_column, why_unsayable
from useg.data.folder_notes import read_notes, write_notes
from useg.data.images import is_image
from useg.data.intake import Intake
from useg.data.known_files import KnownFiles, digest_file, state_of
from useg.data.layouts import read_layout
from useg.data.listing import list_files
from useg.data.locating import Located, locate
from useg.data.manifest import FileRef, Manifest, Row
from useg.data.manifest_rows import RESERVED
from useg.data.mapping_file import MAPPING_FILE, parse_keys, write_keys
from useg.data.pairs import PAIRS_FILE
from useg.data.progress import Progress
from useg.data.reading import Reading, Sample
from useg.data.versions import MAIN, Dataset
from useg.errors import DataError, InputError, Problem

_STRIPPED = "strip 1"
"""Changes with the rules of stripping."""


@dataclass(frozen=True)
class Added:
    """What came of adding a folder.

    Attributes:
        version: where the branch stands now.
        own: the version of what was added; another one only where the branch had moved on and both were merged.
        changed: whether `own` is a new version.
        bytes_read: bytes of files that had to be read.
        bytes_stored: bytes that the home grew by.
        problems: what should be looked at; nothing of it kept the folder from being added.
        left: what `strip` could not take away.
    """

    version: Version
    own: Version
    changed: bool
    bytes_read: int
    bytes_stored: int
    problems: tuple[Problem, ...] = ()
    left: tuple[Problem, ...] = ()

    @property
    def digest(self) -> str:
        """The version's digest."""
        return self.version.digest

    @property
    def samples(self) -> int:
        """How many samples the version has."""
        return self.version.samples


def add(
    dataset: Dataset,
    data: Path,
    message: str | None = None,
    *,
    link: bool = False,
    strip: bool = False,
    keep: bool = False,
    follow_links: bool = False,
    branch: str = MAIN,
    progress: Progress | None = None,
) -> Added:
    """Make what a folder holds the next version of a data set.

    What is known of a sample beyond the folder (fields set in the home, a split, the classes) is kept. If the
    folder was checked out or added before, and others have moved the branch since, their changes and those of the
    folder are merged; samples that a checkout left out by its query stay.

    Args:
        dataset: the data set, which may be new.
        data: anything `read_layout` reads.
        message: why; by default the folder's name.
        link: keep digests and places alone; the version can be read while the files stay as they are.
        strip: take out what could name a person, see `useg.data.stripping`.
        keep: samples that are not in the folder stay in the version.
        follow_links: take files that links in the folder lead to, also outside of it.
        branch: the branch that moves.
        progress: told how many bytes are done.

    Raises:
        DataError: files cannot be read or named; all of them are listed, and no version is made.
        Moved: somebody else changed the same samples meanwhile.
    """
    if link and strip:
        raise InputError("--link keeps files as they are, so they cannot be stripped: give one of the two")
    head = dataset.head(branch)
    if head is None and branch != MAIN:
        raise InputError(f"{dataset.name} has no branch {branch!r}; begin it first")
    root = data if data.is_dir() else data.parent
    known = KnownFiles(root, treatment=_STRIPPED if strip else "")
    past = _Past(dataset, root, known, f"{branch} {link=} {keep=} {follow_links=}")
    state = state_of(root) if data.is_dir() else ""
    base, same = past.base(head, state)
    may_lack = base != head and dataset.objects.snapshot.withdrawn  # a sample of the folder was withdrawn, perhaps
    if head is not None and base is not None and same and not may_lack:
        return Added(head, base, changed=False, bytes_read=0, bytes_stored=0)
    reading, renamed = _with_free_names(_read(data))
    located = locate(reading.samples, root, follow_links=follow_links)
    intake = Intake(dataset.objects, known, link=link, strip=strip)
    digests = intake.take(located, progress)
    before = None if base is None else dataset.contents(base)
    rows = _rows(reading.samples, located, digests)
    stay = set() if before is None else past.staying(before.manifest, keep=keep)
    manifest = _onto(before, rows, stay)
    links = (Links(os.path.abspath(root), located.outside),) if link else ()
    if stay and before is not None:
        links = tuple({each.root: each for each in (*before.links, *links)}.values())
    mapping = _mapping(root, reading) or (before.mapping if before else None)
    contents = Contents(manifest, mapping, links)
    version = dataset.commit(contents, message or f"add {data.resolve().name}", base=base, branch=branch)
    own = _own(dataset, version, manifest, base)
    problems = (*reading.problems, *located.notes, *renamed, *past.passed_over(located))
    # What is wrong is said again each time; files elsewhere are no part of the folder's state.
    past.note(own, "" if problems or intake.left or located.outside else state)
    changed = base is None or own.commit != base.commit
    return Added(version, own, changed, intake.bytes_read, intake.bytes_stored, problems, tuple(intake.left))


def _own(dataset: Dataset, version: Version, manifest: Manifest, base: Version | None) -> Version:
    """The version of exactly this manifest: the latest one, one that was merged into it, or the one before."""
    digest = manifest.digest()
    near = [version, *map(dataset.version, version.parents), *([base] if base else [])]
    return next((each for each in near if each.digest == digest), version)


class _Past:
    """What a folder grew from: it was checked out, or added before."""

    def __init__(self, dataset: Dataset, root: Path, known: KnownFiles, how: str) -> None:
        self._dataset, self._root, self._known = dataset, root, known
        self._line = f"{dataset.store.url} {dataset.name} {how}"
        self._notes = read_notes(root)
        if self._notes is not None and not self._notes.dataset:
            raise DataError(f"{root}: a checkout into this folder was interrupted; repeat it first")

    def base(self, head: Version | None, state: str) -> tuple[Version | None, bool]:
        """The version that the folder grew from, else the latest; and whether the folder is still the same.

        Args:
            head: the latest version of the branch.
            state: of the folder now.
        """
        commit, before = self._known.base(self._line)
        same = bool(state) and state == before
        if self._notes is not None and self._notes.dataset == self._dataset.name:
            same = same and commit == self._notes.commit
            commit = self._notes.commit
        if head is None or commit is None:
            return head, False
        base = head if commit == head.commit else self._dataset.ancestors(head).get(commit)
        if base is None or same or base == head:
            return base or head, same and base is not None
        since = self._dataset.contents(base).manifest.diff(self._dataset.contents(head).manifest)
        # Fields alone are taken over from the latest version in any case.
        return base if any((since.added, since.removed, since.relabelled, since.changed)) else head, False

    def staying(self, manifest: Manifest, *, keep: bool) -> set[str]:
        """Keys of samples that stay though the folder does not have them."""
        notes = self._notes
        if keep:
            return set(manifest.columns(["key"])["key"].to_pylist())
        if notes is None or notes.where is None or notes.dataset != self._dataset.name:
            return set()
        from useg.data.query import query

        everything = set(manifest.columns(["key"])["key"].to_pylist())
        return everything.difference(query(manifest, notes.where).keys)

    def note(self, version: Version, state: str) -> None:
        """Remember what the folder is a version of, and the state it was in."""
        self._known.note_base(self._line, version.commit, state)
        self._known.save()
        if self._notes is not None and self._notes.dataset == self._dataset.name:
            # the version has what these texts said, so a later checkout may write others over them
            texts = [name for name in (PAIRS_FILE, MAPPING_FILE) if (self._root / name).is_file()]
            files = {**self._notes.files, **{name: [digest_file(self._root / name)[0]] for name in texts}}
            write_notes(self._root, replace(self._notes, commit=version.commit, files=files))

    def passed_over(self, located: Located) -> list[Problem]:
        """Images that lie beside a checkout, which its pairs.csv does not name."""
        if self._notes is None or not (self._root / PAIRS_FILE).is_file():
            return []
        paths = [path for path in list_files(self._root).files if is_image(Path(path))]
        left = [path for path in paths if path not in located.files]
        if not left:
            return []
        what = f"not added, as are {len(left) - 1} more" if len(left) > 1 else "not added"
        return [Problem(left[0], f"{what}: {PAIRS_FILE}, which the checkout wrote, does not name it", "give it a line")]


def _read(data: Path) -> Reading:
    try:
        return read_layout(data)
    except OSError as error:
        raise DataError(f"{shown(str(data))}: cannot be read: {error.strerror or error}") from error


def _with_free_names(reading: Reading) -> tuple[Reading, list[Problem]]:
    """Fields called like what every sample has get another name; says so."""
    names = free_names(sorted({name for sample in reading.samples for name in sample.metadata}), RESERVED)
    renamed = [
        Problem(name, f"this field is kept as {free}", f"every manifest has a column called {name}")
        for name, free in names.items()
        if free != name
    ]
    if not renamed:
        return reading, []
    samples = tuple(
        replace(sample, metadata={names[name]: text for name, text in sample.metadata.items()})
        for sample in reading.samples
    )
    return replace(reading, samples=samples), renamed


def _rows(samples: Iterable[Sample], located: Located, digests: dict[str, tuple[str, int]]) -> list[Row]:
    """The samples as rows of a manifest.

    Raises:
        DataError: keys or fields cannot be kept; all of them are listed.
    """
    samples = list(samples)
    problems = []
    metadata: list[dict[str, Value]] = [{} for _ in samples]
    for name in sorted({name for sample in samples for name in sample.metadata}):
        if why := why_unsayable(name, name=True):
            problems.append(Problem(shown(name), f"this name of a field cannot be kept: {why}", "rename the column"))
        for values, value in zip(metadata, typed_column([s.metadata.get(name) for s in samples]), strict=True):
            if value is not None:
                values[name] = value
    rows = []
    for sample, fields in zip(samples, metadata, strict=True):
        for text in (sample.key, sample.group or "", *(v for v in fields.values() if isinstance(v, str))):
            if why := why_unsayable(text):
                problems.append(Problem(shown(sample.key), f"{shown(text)!r} cannot be kept: {why}"))
        files: dict[str, tuple[FileRef, ...]] = {}
        for role, refs in (
            ("image", sample.images),
            ("objects" if sample.masks_are_objects else "label", sample.labels),
            ("region", (sample.region,) if sample.region else ()),
        ):
            if refs:
                files[role] = tuple(FileRef(*located.refs[ref], *digests[located.refs[ref][0]]) for ref in refs)
        rows.append(Row(sample.key, files, sample.group, sample.split, fields, None, None))
    if problems:
        raise DataError(f"{len(problems)} names cannot be kept", problems)
    return rows


def _onto(before: Contents | None, rows: list[Row], stay: set[str]) -> Manifest:
    """The new manifest; what the version before knew of the same samples beyond the folder stays.

    Args:
        before: the version before.
        rows: the folder's samples.
        stay: keys of samples that stay though the folder does not have them.
    """
    if before is None:
        return Manifest.from_rows(rows)
    # Without the columns of files, which a large manifest is mostly made of.
    fields = list(before.manifest.field_types)
    known = before.manifest.columns(["key", "group", "split", *fields]).to_pydict()
    place = {key: number for number, key in enumerate(known["key"])}
    joined = []
    for row in rows:
        at = place.pop(row.key, None)
        if at is not None:
            old = {name: known[name][at] for name in fields if known[name][at] is not None}
            group, split = row.group or known["group"][at], row.split or known["split"][at]
            row = replace(row, group=group, split=split, metadata={**old, **row.metadata})
        joined.append(row)
    return Manifest.from_rows([*joined, *(before.manifest.rows(sorted(stay & place.keys())) if stay else ())])


def _mapping(root: Path, reading: Reading) -> str | None:
    """The text of the folder's `classes.toml`; else what its own description says of the classes.

    Raises:
        DataError: the file is not TOML.
    """
    path = root / MAPPING_FILE
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: the label mapping cannot be read: {error}") from None
        parse_keys(text, str(path))
        return text
    names = reading.hints.get("class_names")
    if not isinstance(names, dict) or not names:
        return None
    classes = [{"name": str(name), "values": (int(value),), "colours": ()} for value, name in sorted(names.items())]
    return write_keys({"kind": "values", "ignore": reading.hints.get("ignore"), "classes": classes})
