"""A version of a data set, or a part of it, as samples: named as they were added, fetched when they are read."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from useg.data.commits import Links, Version
from useg.data.fields import text_of
from useg.data.headers import split_ref
from useg.data.images import read_header, suffix_of
from useg.data.known_files import digest_file
from useg.data.manifest import FileRef, Row
from useg.data.reading import Reading, Sample, natural_order
from useg.data.renaming import told_by_name
from useg.data.transforming import Geometric, change_files, geometric
from useg.data.transforms import parse_transforms
from useg.errors import DataError, Problem

if TYPE_CHECKING:
    from useg.data.manifest import Manifest
    from useg.data.versions import Contents, Dataset
    from useg.home.ahead import Ahead
    from useg.home.cache import Pin
    from useg.home.fetching import Fetcher, Wanted

ROLES = ("image", "label", "objects", "region")


@dataclass(frozen=True)
class Origin:
    """What a run learned from.

    Attributes:
        dataset: name of the data set.
        version: digest of the version; the same samples have the same one everywhere.
        commit: digest of the commit, which the home keeps for the run.
        view: digest of version and query.
        where: the query; None for all samples.
        transforms: declared changes, as text.
        kept: whether the home has the files themselves; if not, the run can be repeated only while they stay.
    """

    dataset: str
    version: str
    commit: str
    view: str
    where: str | None
    kept: bool
    transforms: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """What a run's record says of it."""
        return {
            "dataset": self.dataset,
            "version": self.version,
            "commit": self.commit,
            "view": self.view,
            "where": self.where,
            "transforms": list(self.transforms),
            "reproducible": True if self.kept else "only while the folder is unchanged",
        }


class ViewFiles:
    """The files of a view's samples: fetched into this machine's cache, or checked where they lie.

    Args:
        rows: of the view.
        fetcher: brings objects of the home to this machine.
        places: where files lie instead, by their path in the version; they are checked against their digests
            once, when they are first read.
        transforms: declared changes of the pixels; changed files lie in the cache, too.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        fetcher: "Fetcher",
        places: Mapping[str, str] | None = None,
        transforms: Sequence[Geometric] = (),
    ) -> None:
        self._rows, self._transforms = {row.key: row for row in rows}, tuple(transforms)
        self._fetcher, self._places = fetcher, places or {}
        self._check = _Check()
        self._spaces: dict[str, tuple[int, ...]] = {}
        self._changed: dict[str, tuple[Sample, tuple[str, ...]]] = {}
        self._ahead: Ahead | None = None
        self._lock = Lock()

    @property
    def fetcher(self) -> "Fetcher":
        """What brings objects of the home to this machine."""
        return self._fetcher

    @property
    def are_far(self) -> bool:
        """Whether the files have to come from another machine; what its cache has of them does not count."""
        from useg.home.store import Folder

        return not self._places and not isinstance(self._fetcher.objects.store, Folder)

    def know(self, spaces: Mapping[str, tuple[int, ...]]) -> None:
        """Take in sizes over space, by key, so that no file needs to be fetched for them."""
        self._spaces |= {key: tuple(space) for key, space in spaces.items()}

    def space(self, sample: Sample) -> tuple[int, ...]:
        """Size over space: as known, as the version says, else from the header of the first image."""
        shape = None if self._transforms else self._rows[sample.key].shape
        known = self._spaces.get(sample.key) or (tuple(shape[1:]) if shape else None)
        if known:
            return known
        with self.local(sample) as here:
            return read_header(here.images[0]).space

    @contextmanager
    def following(self, order: Iterable[Sample]) -> Iterator[None]:
        """Meanwhile, fetch files ahead in the order in which samples will be asked for."""
        from useg.home.ahead import Ahead

        with Ahead(self._fetcher, filter(None, (self._wanted(sample.key) for sample in order))) as ahead:
            before, self._ahead = self._ahead, ahead
            try:
                yield
            finally:
                self._ahead = before

    @contextmanager
    def local(self, sample: Sample) -> Iterator[Sample]:
        """The sample with refs to files of this machine, which stay meanwhile.

        Raises:
            DataError: a file is gone or not what was added; all such files of the sample are named.
            Missing, DamagedFile: the home does not have it, or not whole.
        """
        if self._transforms:
            with self._fetcher.cache.pin() as pin:
                here = self._transformed(sample, pin)
                with told_by_name(sample, here):
                    yield here
        else:
            with self._held(sample.key) as paths:
                here = _placed(sample, paths)
                with told_by_name(sample, here):
                    yield here

    def _transformed(self, sample: Sample, pin: "Pin") -> Sample:
        """The sample with refs to its changed files, held by a pin; made when they are not here."""
        while True:
            with self._lock:
                known = self._changed.get(sample.key)
            if known is not None:
                pin.hold(Path(file).name[:64] for file in known[1])
                if all(map(os.path.exists, known[1])):
                    return known[0]
            with self._held(sample.key) as paths:
                digests = {paths[path]: ref.digest for path, ref in self._files(sample.key).items()}
                here = _placed(sample, paths)
                with told_by_name(sample, here):
                    found = change_files(here, self._transforms, self._fetcher.cache, digests)
            files = {str(split_ref(ref)[0]) for ref in (*found.images, *found.labels, *filter(None, [found.region]))}
            with self._lock:
                self._changed[sample.key] = found, tuple(files)

    def check(self, samples: Sequence[Sample], *, also_here: bool = True) -> None:
        """See that all files of these samples can be had, before the first is fetched.

        Args:
            also_here: read and compare what does not come from the home, too.

        Raises:
            DataError: files were withdrawn, are not in the home, or not what was added; all are named.
        """
        problems: list[Problem] = []
        refs: dict[str, tuple[str, str]] = {}
        for sample in samples:
            files = self._files(sample.key)
            here = {self._places[path]: ref.digest for path, ref in files.items() if path in self._places and also_here}
            try:
                self._check(sample.key, here)
            except DataError as error:
                problems += error.problems
            refs |= {ref.digest: (sample.key, path) for path, ref in files.items() if path not in self._places}
        objects = self._fetcher.objects
        for digest, there in zip(refs, objects.has(list(refs)), strict=True):
            if not there:
                key, path = refs[digest]
                gone = digest in objects.snapshot.withdrawn
                why = str(objects.withdrawal(digest)) if gone else f"object {digest} is not in {objects.store.url}"
                problems.append(Problem(f"{key} ({path})", why, "" if gone else "pull it from another home"))
        if problems:
            raise DataError(f"{len(problems)} files cannot be had", problems)

    def _files(self, key: str) -> dict[str, FileRef]:
        """The files of a sample, by path."""
        return {ref.path: ref for role in ROLES for ref in self._rows[key].files.get(role, ())}

    def _wanted(self, key: str) -> "tuple[Wanted, ...]":
        """What is to be fetched for a sample."""
        refs = self._files(key).values()
        return tuple((ref.digest, suffix_of(Path(ref.path))) for ref in refs if ref.path not in self._places)

    @contextmanager
    def _held(self, key: str) -> Iterator[dict[str, str]]:
        """Where the files of a sample are, by path, as long as they stay there."""
        files = self._files(key)
        paths = {path: self._places[path] for path in files if path in self._places}
        self._check(key, {paths[path]: files[path].digest for path in paths})
        wanted = self._wanted(key)
        if not wanted:
            yield paths
            return
        fetched = [path for path in files if path not in paths]
        with (self._ahead or self._fetcher).holding(wanted) as found:
            yield paths | {path: str(file) for path, file in zip(fetched, found, strict=True)}


def _placed(sample: Sample, paths: Mapping[str, str]) -> Sample:
    """A sample with refs to files of this machine, given where they are."""

    def there(ref: str) -> str:
        path, part = split_ref(ref)
        return paths[path.as_posix()] + (f"#{part}" if part else "")

    return replace(
        sample,
        images=tuple(map(there, sample.images)),
        labels=tuple(map(there, sample.labels)),
        region=None if sample.region is None else there(sample.region),
    )


class CheckedFiles:
    """Files that lie where the samples' refs say, and are what they were when they were added.

    Args:
        samples: their refs are paths of this machine.
        rows: the same samples in a version, by key.
    """

    def __init__(self, samples: Sequence[Sample], rows: Mapping[str, Row]) -> None:
        self._check = _Check()
        self._digests: dict[str, str] = {}
        for sample in samples:
            files = rows[sample.key].files
            labels = files.get("objects") or files.get("label", ())
            regions = (sample.region,) if sample.region else ()
            for refs, known in (
                (sample.images, files.get("image", ())),
                (sample.labels, labels),
                (regions, files.get("region", ())),
            ):
                self._digests |= {str(split_ref(ref)[0]): file.digest for ref, file in zip(refs, known, strict=True)}

    def space(self, sample: Sample) -> tuple[int, ...]:
        """Size over space, from the header of the first image."""
        return read_header(sample.images[0]).space

    def local(self, sample: Sample) -> AbstractContextManager[Sample]:
        """The sample itself, once its files were compared with their digests.

        Raises:
            DataError: a file is gone or not what was added; all such files of the sample are named.
        """
        regions = (sample.region,) if sample.region else ()
        paths = {str(split_ref(ref)[0]) for ref in (*sample.images, *sample.labels, *regions)}
        self._check(sample.key, {path: self._digests[path] for path in paths})
        return nullcontext(sample)

    def following(self, order: Iterable[Sample]) -> AbstractContextManager[None]:
        """There is nothing to fetch."""
        return nullcontext()


class _Check:
    """Compares each file with its digest once."""

    def __init__(self) -> None:
        self._done: set[str] = set()

    def __call__(self, key: str, digests: Mapping[str, str]) -> None:
        problems = []
        for place, digest in sorted(digests.items()):
            if place in self._done:
                continue
            try:
                same = digest_file(Path(place))[0] == digest
            except OSError as error:
                problems.append(Problem(place, f"cannot be read: {error.strerror or error}"))
                continue
            if same:
                self._done.add(place)
            else:
                problems.append(Problem(place, "is not what it was when it was added", "put it back, or begin anew"))
        if problems:
            raise DataError(f"{key} has changed", problems)


def sample_of(row: Row) -> Sample:
    """A row as a sample whose refs are the paths of the version."""

    def refs(role: str) -> tuple[str, ...]:
        return tuple(f"{f.path}#{f.part}" if f.part else f.path for f in row.files.get(role, ()))

    objects = refs("objects")
    return Sample(
        row.key,
        refs("image"),
        objects or refs("label"),
        masks_are_objects=bool(objects),
        region=next(iter(refs("region")), None),
        group=row.group,
        split=row.split,
        metadata={name: text_of(value) for name, value in row.metadata.items() if value is not None},
    )


@dataclass(frozen=True)
class View:
    """Samples to learn from.

    Attributes:
        reading: samples with the refs of the version.
        origin: which version, which query.
        files: where the samples' files are had from.
        manifest: of the whole version, with what was counted in its files.
        dataset: that the version is of.
    """

    reading: Reading
    origin: Origin
    files: ViewFiles
    manifest: "Manifest"
    dataset: "Dataset"


def open_view(
    dataset: "Dataset", ref: str, where: str | None, fetcher: "Fetcher", transforms: Sequence[str] = ()
) -> View:
    """The samples of a version for which a query holds.

    Args:
        dataset: the data set.
        ref: a branch, tag, digest of it; "" is the branch main.
        where: the query; None takes all.
        fetcher: brings its objects to this machine.
        transforms: declared changes, such as `resize=256`, see `useg.data.transforms`.

    Raises:
        InputError: there is no such version, or the query or a transform is none.
        DataError: the query holds for no sample.
    """
    from useg.data.query import query
    from useg.data.statistics import with_known_statistics

    version = dataset.resolve(ref)
    contents = dataset.contents(version)
    changes = parse_transforms(transforms)
    manifest = with_known_statistics(dataset, contents)
    view = query(manifest, where, changes)
    chosen = set(view.keys)
    rows = sorted(contents.manifest.rows(chosen), key=lambda row: natural_order(row.key))
    if not rows:
        raise DataError(f"{dataset.name}@{version.digest[:12]}: no sample for which {where!r} holds")
    places = linked_places(dataset, version, rows)
    origin = Origin(
        dataset.name, version.digest, version.commit, view.digest, where, not places, tuple(map(str, changes))
    )
    said = (f" where {where}" if where else "") + "".join(f", {change}" for change in changes)
    reading = reading_of(dataset, version, contents, rows, said)
    return View(reading, origin, ViewFiles(rows, fetcher, places, geometric(changes)), manifest, dataset)


def reading_of(
    dataset: "Dataset", version: Version, contents: "Contents", rows: Sequence[Row], said: str = ""
) -> Reading:
    """Samples of a version, given as rows in natural order, with its refs; `said` tells how they were chosen."""
    hints: dict[str, object] = {} if contents.mapping is None else {"mapping": contents.mapping}
    name = f"{dataset.name}@{version.digest[:12]}"
    rule = f"{len(rows)} of {version.samples} samples of {name}{said}"
    return Reading(name, tuple(map(sample_of, rows)), rule, hints=hints)


def linked_places(dataset: "Dataset", version: Version, rows: Sequence[Row]) -> dict[str, str]:
    """Where the files lie that a version names and its home does not keep."""
    if not version.links:
        return {}
    refs = {ref.path: ref.digest for row in rows for files in row.files.values() for ref in files}
    here = dataset.objects.has(list(refs.values()))
    outside = [path for path, there in zip(refs, here, strict=True) if not there]
    return {path: _place(version.links, path) for path in outside}


def _place(links: Sequence[Links], path: str) -> str:
    places = [link.place(path) for link in links]
    return next((place for place in places if os.path.exists(place)), places[0])
