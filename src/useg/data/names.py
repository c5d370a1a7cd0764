"""What the words in file and folder names say: image or label, train or test, and what is left over."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Role = Literal["image", "label"]

_IMAGE_TEXT = """
    image img im ims pic picture photo photograph raw input imaging intensity original orig jpegimage jpgimage
"""
_WEAK_IMAGE_TEXT = "tile patch slice data frame scan volume vol source src"
_LABEL_TEXT = """
    mask msk label lbl annotation annot anno ann gt groundtruth truth seg segm segmentation segmented manual
    target tgt class classe segmentationclass segmentationobject reference instance
"""
_WEAK_LABEL_TEXT = "object scribble boundary edge contour outline delineation trimap matte roi region fov lab ref"
_CLUTTER_TEXT = """
    overlay preview thumb thumbnail prediction pred predicted result output visualization visualisation vis
    colormap colourmap legend backup
"""
_GROUP_TEXT = """
    patient pat subject subj sub animal mouse rat donor case specimen plate well slide wsi scene site plot
    field video clip movie series scan volume vol sequence seq stack
"""
_SPLIT_TEXT = {
    "train": "train training trn tr",
    "val": "val valid validation validate dev",
    "test": "test testing tst ts holdout",
}
_WEAK_IMAGE_WORDS = frozenset(_WEAK_IMAGE_TEXT.split())
_IMAGE_WORDS = _WEAK_IMAGE_WORDS | frozenset(_IMAGE_TEXT.split())
_WEAK_LABEL_WORDS = frozenset(_WEAK_LABEL_TEXT.split())
_LABEL_WORDS = _WEAK_LABEL_WORDS | frozenset(_LABEL_TEXT.split())
_CLUTTER_WORDS = frozenset(_CLUTTER_TEXT.split())
_REGION_WORDS = frozenset({"fov", "roi"})
_INSTANCE_WORDS = frozenset({"instance", "object", "segmentationobject"})
_GROUP_WORDS = frozenset(_GROUP_TEXT.split())
_SPLIT_WORDS = {word: split for split, text in _SPLIT_TEXT.items() for word in text.split()}
_SHORT_SPLIT_WORDS = frozenset({"tr", "ts"})
_PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+|[\W_]+")
_SEPARATORS = re.compile(r"[\W_]+")
_AT_SEPARATORS = re.compile(r"([\W_]+)")
_DIGITS = re.compile(r"\d+")
_MOST_PIECES = 12
_SHORTEST_PART = 3


@dataclass(frozen=True)
class Words:
    """The words found in one component of a path.

    Attributes:
        role: "label" when there is a label word, else "image" when there is an image word.
        kinds: the role words, singular and lower case, in order.
        split: "train", "val", "test" or None.
        rest: what is left without role and split words, separators collapsed, case folded.
        bare: what is left without role words alone.
    """

    role: Role | None
    kinds: tuple[str, ...]
    split: str | None
    rest: str
    bare: str

    @property
    def strength(self) -> int:
        """How clearly the words say the role: 2 plain, 1 weak, 0 not at all, -1 a by-product (overlay)."""
        if any(kind in _CLUTTER_WORDS for kind in self.kinds):
            return -1
        if self.role is None:
            return 0
        weak = _WEAK_LABEL_WORDS if self.role == "label" else _WEAK_IMAGE_WORDS
        known = _LABEL_WORDS if self.role == "label" else _IMAGE_WORDS
        return 2 if any(kind in known and kind not in weak for kind in self.kinds) else 1

    @property
    def says_region(self) -> bool:
        """The words name a field of view."""
        return any(kind in _REGION_WORDS for kind in self.kinds)

    @property
    def says_instances(self) -> bool:
        """The words name single objects rather than classes."""
        return any(kind in _INSTANCE_WORDS for kind in self.kinds)


@lru_cache(maxsize=65536)
def pieces(text: str) -> tuple[str, ...]:
    """The text cut into words, numbers and separators; joined again they give the text.

    Names that change between letters and digits all the time (hashes) are cut at separators only.

    >>> pieces("trainMask_07")
    ('train', 'Mask', '_', '07')
    """
    cut = _PIECES.findall(text)
    if len(cut) > _MOST_PIECES:
        cut = [part for part in _AT_SEPARATORS.split(text) if part]
    return tuple(cut)


@lru_cache(maxsize=65536)
def words(component: str) -> Words:
    """Read the role and split words of one folder name or file stem.

    >>> words("trainannot").role, words("trainannot").split
    ('label', 'train')
    """
    kinds: list[str] = []
    splits: list[str] = []
    rest: list[str] = []
    bare: list[str] = []
    cut = [part for piece in pieces(component) for part in _compound(piece)]
    for index, piece in enumerate(cut):
        kind, split = _singular(piece), _split_word(piece, cut, index)
        if split is not None:
            splits.append(split)
            bare.append(piece)
        elif kind in _IMAGE_WORDS or kind in _LABEL_WORDS or kind in _CLUTTER_WORDS:
            kinds.append(kind)
        else:
            rest.append(piece)
            bare.append(piece)
    role: Role | None = None
    if any(kind in _LABEL_WORDS for kind in kinds):
        role = "label"
    elif any(kind in _IMAGE_WORDS for kind in kinds):
        role = "image"
    split = splits[0] if len(set(splits)) == 1 else None
    if set(splits) == {"train", "val"}:
        split = "train"  # `trainval`: what validation is to be carved out of
    return Words(role, tuple(kinds), split, plain("".join(rest)), plain("".join(bare)))


def plain(text: str) -> str:
    """Case folded, with separators collapsed to one `_` and none at the ends."""
    return _SEPARATORS.sub("_", text).strip("_").casefold()


def _singular(piece: str) -> str:
    lower = piece.casefold()
    known = _IMAGE_WORDS | _LABEL_WORDS | _CLUTTER_WORDS
    return lower[:-1] if lower not in known and lower.endswith("s") and lower[:-1] in known else lower


def _split_word(piece: str, cut: list[str], index: int) -> str | None:
    lower = piece.casefold()
    if lower in _SHORT_SPLIT_WORDS:
        # `imagesTr`: two letters say something only right behind a role word
        behind_role = index > 0 and _singular(cut[index - 1]) in _IMAGE_WORDS | _LABEL_WORDS
        return _SPLIT_WORDS[lower] if behind_role and piece[0].isupper() else None
    return _SPLIT_WORDS.get(lower)


def _compound(piece: str) -> list[str]:
    """`trainannot` as `train` and `annot`; a piece that is no pair of known words stays whole."""
    lower = piece.casefold()
    if not lower.isalpha() or _is_known(lower):
        return [piece]
    for cut in range(2, len(piece) - 1):
        left, right = lower[:cut], lower[cut:]
        if min(len(left), len(right)) < _SHORTEST_PART and not {left, right} & {"gt", "im"}:
            continue
        one_is_split = left in _SPLIT_WORDS or right in _SPLIT_WORDS
        if _is_known(left) and _is_known(right) and (one_is_split or min(len(left), len(right)) > 2):
            return [piece[:cut], piece[cut:]]
    return [piece]


def _is_known(lower: str) -> bool:
    single = _singular(lower)
    return (
        single in _IMAGE_WORDS
        or single in _LABEL_WORDS
        or single in _CLUTTER_WORDS
        or (lower in _SPLIT_WORDS and lower not in _SHORT_SPLIT_WORDS)
    )


@lru_cache(maxsize=65536)
def numbers(text: str) -> tuple[int, ...]:
    """The whole numbers in a name, in order; `01` and `1` are the same number."""
    return tuple(int(number) for number in _DIGITS.findall(text))


def common_ends(stems: Iterable[str]) -> tuple[int, int]:
    """How many pieces all stems share at the start and at the end, counted so that they never overlap.

    >>> common_ends(["a_01_x", "a_02_x"])
    (2, 2)
    """
    cut = [pieces(stem) for stem in stems]
    shortest = min(cut, key=len)
    start = 0
    while start < len(shortest) and all(parts[start] == shortest[start] for parts in cut):
        start += 1
    end = 0
    while end < len(shortest) - start and all(parts[-1 - end] == shortest[-1 - end] for parts in cut):
        end += 1
    return start, end


def group_name(stem: str) -> str | None:
    """The part of a name that says whom it was taken from: `patient001` of `patient001_frame12`.

    None when there is no such word with a number behind it, or when nothing is left to tell samples apart.

    >>> group_name("patient001_frame12")
    'patient001'
    """
    cut = pieces(stem)
    for index, piece in enumerate(cut):
        if piece.casefold() not in _GROUP_WORDS:
            continue
        behind = index + 1
        if behind < len(cut) and _SEPARATORS.fullmatch(cut[behind]):
            behind += 1
        if behind < len(cut) and cut[behind].isdigit() and behind + 1 < len(cut):
            return "".join(cut[: behind + 1])
    return None
