"""Which groups of files are taken as images and labels: all possible pairings, scored, the best first."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log2

from useg.data.families import affix_groups
from useg.data.looks import Looks
from useg.data.matches import Match
from useg.data.matching import match
from useg.data.roles import File, Group, group_files

_LABEL_LIKENESS = 0.5
_LIKENESS_STEP = 0.2
_REGION_SHARE = 0.9
_MOST_FAMILIES = 40
_MOST_CLASSES = 64
_MOST_CONTENT_GROUPS = 16


@dataclass
class Choice:
    """The pairings taken, and what else was possible.

    Attributes:
        matches: pairings that share no file.
        regions: per match (by position) the field-of-view masks that go with its images.
        alternatives: pairings not taken, as sentences.
        groups: all groups that were looked at.
        by_content: the labels were told from the images by their pixels.
    """

    matches: list[Match] = field(default_factory=list)
    regions: dict[int, Match] = field(default_factory=dict)
    alternatives: list[str] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    by_content: bool = False


def choose(files: Sequence[File], looks: Looks) -> Choice:
    """Take the pairing that the words of the names speak for; without words, that the pixels speak for."""
    groups = group_files(files)
    labels = [group for group in groups if group.role == "label" and group.strength >= 0]
    images = [group for group in groups if group.role != "label" and group.strength >= 0]
    choice = _take(_by_words(images, labels, looks), looks)
    choice.groups = groups
    if choice.matches:
        return choice
    for regrouped in (_same, _by_folder, _by_affix):
        candidates = regrouped(files, groups)
        if candidates:
            found = _take(_by_content(candidates, looks), looks)
            if found.matches:
                found.groups, found.by_content = candidates, True
                return found
    return choice


@dataclass(frozen=True)
class _Candidate:
    match: Match
    score: float
    fixed: bool = False


def _by_words(images: list[Group], labels: list[Group], looks: Looks) -> list[_Candidate]:
    found = [m for b in labels for m in _matches(images, b, looks)]
    if len(found) == 1:
        return [_Candidate(found[0], 0.0)]
    several = {id(m.labels) for m in found if sum(other.images is m.images for other in found) > 1}
    fixed = {i for i in several if looks.same_shape_everywhere(next(m.labels for m in found if id(m.labels) == i))}
    return [_Candidate(m, _score(m, looks, fixed=id(m.labels) in fixed), id(m.labels) in fixed) for m in found]


def _matches(images: list[Group], labels: Group, looks: Looks) -> list[Match]:
    """What goes with a label group; one that fits nowhere as a whole is cut into families of names."""
    whole = [m for a in images if (m := match(a, labels)) is not None]
    fitting = [m for m in whole if not (m.objects and looks.overlap(m.pairs))]
    if fitting or not images:
        return fitting
    families = affix_groups(labels)
    return [m for a in images for part in families if (m := match(a, part)) is not None] or whole


def _score(found: Match, looks: Looks, *, fixed: bool) -> float:
    """Higher is better: files matched, clear words, equal sizes, more classes; a fixed mask is none."""
    look = looks.of(found.labels)
    score = found.image_share + 0.5 * found.label_share - 0.03 * found.rank
    score += 0.3 * found.images.strength + 0.3 * found.labels.strength
    score += 0.1 * log2(max(1, min(look.classes, _MOST_CLASSES)))
    score -= 0.4 * found.labels.says_instances
    score -= 0.03 * (look.channels > 1)  # colours need a mapping, ids do not
    score -= 2.0 * (fixed or found.labels.says_region)
    score -= 1.0 * (not _same_size(found, looks))
    score -= 0.5 * (found.objects and not look.binary)
    return score


def _same_size(found: Match, looks: Looks) -> bool:
    """Whether at least one of a few pairs has images and labels of one size; unreadable ones do not count."""
    step = max(1, (len(found.pairs) - 1) // 2)
    sizes = [(looks.space(images[0]), looks.space(labels[0])) for images, labels in found.pairs[::step][:3]]
    known = [(a, b) for a, b in sizes if a is not None and b is not None]
    return not known or any(a == b for a, b in known)


def _by_content(groups: list[Group], looks: Looks) -> list[_Candidate]:
    found: list[_Candidate] = []
    for a in groups:
        for b in groups:
            if a is b or a.role == "label" or b.strength < 0 or a.strength < 0:
                continue
            difference = looks.of(b).label_likeness - looks.of(a).label_likeness
            if looks.of(b).label_likeness < _LABEL_LIKENESS or difference < _LIKENESS_STEP:
                continue
            paired = match(a, b)
            if paired and min(paired.image_share, paired.label_share) >= _LABEL_LIKENESS:
                found.append(_Candidate(paired, _score(paired, looks, fixed=False) + difference))
    return found


def _same(files: Sequence[File], groups: list[Group]) -> list[Group]:
    return groups if 2 <= len(groups) <= _MOST_CONTENT_GROUPS else []


def _by_folder(files: Sequence[File], groups: list[Group]) -> list[Group]:
    literal = group_files(files, literal=True)
    return literal if 2 <= len(literal) <= _MOST_CONTENT_GROUPS else []


def _by_affix(files: Sequence[File], groups: list[Group]) -> list[Group]:
    if len(groups) > _MOST_FAMILIES:
        return []
    cut = [part for group in groups for part in (affix_groups(group) or [group])]
    return cut if 2 <= len(cut) <= _MOST_CONTENT_GROUPS and len(cut) > len(groups) else []


def _take(candidates: list[_Candidate], looks: Looks) -> Choice:
    """Take the best pairing, then the best of those that share no file with it, and so on."""
    choice = Choice()
    left = sorted(candidates, key=lambda each: (-each.score, each.match.images.place, each.match.labels.place))
    used: set[str] = set()
    taken: list[_Candidate] = []
    for candidate in left:
        if not used & _refs(candidate.match):
            taken.append(candidate)
            used |= _refs(candidate.match)
    for position, candidate in enumerate(taken):
        choice.matches.append(candidate.match)
        rivals = [c for c in left if c not in taken and c.match.images is candidate.match.images]
        for rival in rivals:
            is_region = rival.fixed or rival.match.labels.says_region
            whole = rival.match.image_share >= _REGION_SHARE and not rival.match.objects
            own = {file.ref for file in rival.match.labels.files}
            whole = whole and not used & own
            if is_region and whole and not candidate.fixed and position not in choice.regions:
                choice.regions[position] = rival.match
                used |= own
                continue
            choice.alternatives.append(_sentence(rival.match, "labels"))
    for candidate in left:
        if candidate not in taken and all(candidate.match.images is not each.match.images for each in taken):
            choice.alternatives.append(_sentence(candidate.match, "images"))
    return choice


def _refs(found: Match) -> set[str]:
    return {file.ref for group in (found.images, found.labels) for file in group.files}


def _sentence(found: Match, role: str) -> str:
    group, other = (found.labels, found.images) if role == "labels" else (found.images, found.labels)
    count = f"{len(found.pairs)} pairs {found.how}"
    return f"{group.place} as {role}, with {other.place} ({count})"
