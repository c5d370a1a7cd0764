"""Files of a folder in groups that play one role each: images, labels, or not yet known."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from unicodedata import normalize

from useg.data.names import Role, Words, numbers, plain, words

_LOSSLESS_TWIN = {".jpeg": ".jpg", ".tiff": ".tif"}
_MOST_OVERLAP = 0.1


@dataclass(frozen=True)
class File:
    """One file that may be an image or a label; a data set inside an HDF5 file counts as a file in a folder.

    Attributes:
        ref: what `read_image` takes, relative to the root.
        folders: the folders above it, from the root.
        stem: its name without suffix.
        suffix: in lower case.
        container: the real file when it lies inside one, else the same as `ref`.
    """

    ref: str
    folders: tuple[str, ...]
    stem: str
    suffix: str
    container: str

    @cached_property
    def words(self) -> Words:
        """The words of its stem."""
        return words(self.stem)

    @cached_property
    def split(self) -> str | None:
        """The split that its folders name; one that names nothing else counts first, the deepest of them."""
        found = [words(folder) for folder in self.folders]
        clear = [each.split for each in found if each.split and not each.rest]
        vague = [each.split for each in found if each.split]
        return clear[-1] if clear else vague[0] if vague else None


def as_file(path: str, dataset: str | None = None) -> File:
    """A `File` for a path relative to the root, or for a data set inside it.

    Names are compared in Unicode's composed form: some systems write the accents of a name as characters of their own.
    """
    *folders, name = normalize("NFC", path).split("/")
    stem, suffix = split_suffix(name)
    if dataset is None:
        return File(path, tuple(folders), stem, suffix, path)
    *groups, last = dataset.strip("/").split("/")
    return File(f"{path}#{dataset.strip('/')}", (*folders, stem, *groups), last, suffix, path)


def split_suffix(name: str) -> tuple[str, str]:
    """`a.b.nii.gz` as `a.b` and `.nii.gz`; the suffix in lower case, one spelling for each format."""
    stem, dot, suffix = name.rpartition(".")
    if not dot or not stem:
        return name, ""
    found = f".{suffix.casefold()}"
    if found in {".gz", ".bz2", ".xz"}:
        inner, inner_suffix = split_suffix(stem)
        return inner, inner_suffix + found
    return stem, _LOSSLESS_TWIN.get(found, found)


@dataclass(frozen=True, eq=False)
class Group:
    """Files with one role: the same folder template, the same role words in the name, one kind of suffix.

    Attributes:
        role: what the words say, None when they say nothing.
        strength: how clearly, see `Words.strength`.
        place: how to call it in a sentence: `images/`, `masks/*_mask.png`.
        folder_keys: per file, what its folders say beyond roles and splits; one text a level.
        names: per file, its path without the role folder and without suffix.
    """

    files: tuple[File, ...]
    role: Role | None
    strength: int
    place: str
    folder_keys: dict[str, tuple[str, ...]]
    names: dict[str, str]
    says_region: bool = False
    says_instances: bool = False

    def __len__(self) -> int:
        return len(self.files)


def group_files(files: Sequence[File], *, literal: bool = False) -> list[Group]:
    """Sort files into groups by the words of their paths.

    Args:
        files: in natural order.
        literal: every folder is a group of its own, also folders without role words.
    """
    roles_of = _FolderRoles(files)
    by_template: dict[tuple[str, ...], list[File]] = defaultdict(list)
    keys: dict[str, tuple[str, ...]] = {}
    for file in files:
        template, keys[file.ref] = roles_of.template(file, literal=literal)
        by_template[template].append(file)
    groups: list[Group] = []
    for members in by_template.values():
        for same_names in _by_names(members, roles_of, keys):
            for same_suffix in _by_suffix(same_names):
                groups.append(_as_group(same_suffix, roles_of, keys, siblings=len(members)))
    return groups


def regroup(group: Group, files: Iterable[File], place: str) -> Group:
    """A group of some of another group's files."""
    kept = tuple(files)
    return Group(
        kept,
        group.role,
        group.strength,
        place,
        group.folder_keys,
        group.names,
        group.says_region,
        group.says_instances,
    )


class _FolderRoles:
    """Which folders carry a role, found by looking at all paths together."""

    def __init__(self, files: Sequence[File]) -> None:
        self._stem_roles: dict[tuple[str, ...], set[Role | None]] = defaultdict(set)
        for file in files:
            self._stem_roles[file.folders].add(file.words.role)
        self._deeper: dict[tuple[str, ...], set[Role | None]] = defaultdict(set)
        for folders, stem_roles in self._stem_roles.items():
            below: set[Role | None] = set(stem_roles) if len(stem_roles) > 1 and "label" in stem_roles else set()
            for depth in range(len(folders), 0, -1):
                self._deeper[folders[:depth]] |= below
                below = below | {words(folders[depth - 1]).role}
        rests: dict[str, set[bool]] = defaultdict(set)
        for folders in self._stem_roles:
            for folder in folders:
                said = words(folder)
                if said.rest:
                    rests[said.rest].add(said.role == "label")
        self._shared = {rest for rest, roles in rests.items() if len(roles) > 1}
        numbered = {numbers(rest) for rest, roles in rests.items() if False in roles} - {()}
        self._shared |= {rest for rest, roles in rests.items() if True in roles and numbers(rest) in numbered}

    def role_depth(self, folders: tuple[str, ...]) -> int | None:
        """Index of the folder that gives the role: the deepest one that nothing below contradicts."""
        for depth in range(len(folders), 0, -1):
            role, below = words(folders[depth - 1]).role, self._deeper[folders[:depth]]
            contradicted = "label" in below and (role == "image" or "image" in below)
            if role is not None and not contradicted:
                return depth - 1
        return None

    def template(self, file: File, *, literal: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The folder path with what varies taken out, and what was taken out."""
        at = self.role_depth(file.folders)
        template: list[str] = []
        keys: list[str] = []
        for depth, folder in enumerate(file.folders):
            said = words(folder)
            name = said.rest
            if depth == at:
                shared = name in self._shared
                template.append("+".join(said.kinds) + ("" if shared else f":{name}"))
                keys.append(name if shared else "")
            else:
                template.append(f"={plain(said.bare) if said.split is None else name}" if literal else "*")
                keys.append(name)
        return tuple(template), tuple(keys)

    def stem_counts(self, file: File) -> bool:
        """Whether role words in the file's name say more than its folder."""
        roles = self._stem_roles[file.folders]
        return self.role_depth(file.folders) is None or (len(roles) > 1 and "label" in roles)


def _by_names(files: list[File], roles_of: _FolderRoles, keys: dict[str, tuple[str, ...]]) -> list[list[File]]:
    """Files of one template by the role words in their names; names that do not compete stay together."""
    classes: dict[tuple[str, ...], list[File]] = defaultdict(list)
    for file in files:
        classes[file.words.kinds].append(file)
    by_products = any(file.words.strength < 0 for file in files)  # often of another format than their pictures
    merged: list[tuple[bool, set[tuple[object, ...]], list[File]]] = []
    for members in sorted(classes.values(), key=len, reverse=True):
        is_label = members[0].words.role == "label" and roles_of.stem_counts(members[0])
        names: set[tuple[object, ...]] = {
            (keys[file.ref], file.split, file.words.rest, "" if by_products else file.suffix) for file in members
        }
        for other_is_label, other_names, others in merged:
            if is_label == other_is_label and len(names & other_names) <= _MOST_OVERLAP * len(names):
                others.extend(members)
                other_names |= names
                break
        else:
            merged.append((is_label, names, list(members)))
    order = {file.ref: index for index, file in enumerate(files)}
    return [sorted(members, key=lambda file: order[file.ref]) for _, _, members in merged]


def _by_suffix(files: list[File]) -> list[list[File]]:
    """Apart by suffix only when one name comes with several of them: the suffix then tells the role."""
    suffixes: dict[tuple[tuple[str, ...], str], set[str]] = defaultdict(set)
    for file in files:
        suffixes[file.folders, file.stem].add(file.suffix)
    if all(len(found) == 1 for found in suffixes.values()):
        return [files]
    by_suffix: dict[str, list[File]] = defaultdict(list)
    for file in files:
        by_suffix[file.suffix].append(file)
    return list(by_suffix.values())


def _as_group(files: list[File], roles_of: _FolderRoles, keys: dict[str, tuple[str, ...]], siblings: int) -> Group:
    first = files[0]
    at = roles_of.role_depth(first.folders)
    said = [words(first.folders[at])] if at is not None else []
    if roles_of.stem_counts(first) and first.words.role is not None:
        said.append(first.words)
    role = said[-1].role if said else None
    if len(said) > 1 and said[0].role == "label":
        role = "label"
    strength = min((each.strength for each in said if each.role == role), default=0)
    if any(each.strength < 0 for each in [*said, first.words]):
        strength = -1
    of_role = {file.ref: keys[file.ref] for file in files}
    says_region = role == "label" and any(each.says_region for each in said)
    says_instances = role == "label" and any(each.says_instances for each in said)
    whole = siblings == len(files)
    names = {file.ref: _name(file, roles_of.role_depth(file.folders), keys[file.ref]) for file in files}
    return Group(tuple(files), role, strength, _place(files, whole=whole), of_role, names, says_region, says_instances)


def _name(file: File, at: int | None, keys: tuple[str, ...]) -> str:
    """`train/7` for `train/images/7.png`; a name that only says the role or repeats its folder is dropped."""
    parts = list(file.folders)
    if at is not None:
        parts[at] = "_".join(part for part in (words(parts[at]).split, keys[at]) if part)
    parts = [part for part in parts if part]
    only_role = file.words.role is not None and not file.words.bare
    if not parts or not (only_role or parts[-1] == file.stem):
        parts.append(file.stem)
    return "/".join(parts)


def _place(files: list[File], *, whole: bool) -> str:
    """`train/images/`, or `train/images/*_mask.png` where other files lie in the same folders."""
    levels = max(len(file.folders) for file in files)
    shown: list[str] = []
    for depth in range(levels):
        names = sorted({file.folders[depth] for file in files if depth < len(file.folders)})
        shown.append(names[0] if len(names) == 1 else "{" + ",".join(names) + "}" if len(names) <= 3 else "*")
    inside = any(file.container != file.ref for file in files)
    folder = "".join(f"{name}/" for name in shown)
    if whole and shown and not inside:
        return folder
    return folder + name_pattern(files)


def name_pattern(files: Sequence[File]) -> str:
    """The file names with `*` for what varies: `*_mask.png`."""
    stems = [file.stem for file in files]
    suffixes = {file.suffix for file in files}
    suffix = suffixes.pop() if len(suffixes) == 1 else ".*"
    if any(file.container != file.ref for file in files):
        suffix = ""
    if len(set(stems)) == 1:
        return stems[0] + suffix
    start = len(_common(stems))
    end = min(len(_common([stem[::-1] for stem in stems])), min(map(len, stems)) - start)
    return f"{stems[0][:start]}*{stems[0][len(stems[0]) - end :]}{suffix}"


def _common(texts: list[str]) -> str:
    low, high = min(texts), max(texts)
    size = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    shared = low[:size]
    return shared.rstrip("0123456789")
