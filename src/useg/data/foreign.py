"""Image formats that are known and not read, and the way from them to one that is."""

from collections.abc import Iterable

_NIFTI_PAIR = "pairs of .hdr and .img are not read: `nib-convert NAME.img NAME.nii.gz` makes one file of two"
_PHONE = "pictures of phones in HEIC or AVIF are not read: export them as JPEG or PNG"
_MICROSCOPE = "files of microscopes are not read: export them as TIFF, for example with Fiji"
_MEDICAL = "medical volumes in this format are not read: convert them to NIfTI (.nii.gz)"
_PICTURE = "pictures in this format are not read: save them as PNG or TIFF"

_WAYS = {
    **dict.fromkeys((".hdr", ".img"), _NIFTI_PAIR),
    **dict.fromkeys((".heic", ".heif", ".avif"), _PHONE),
    **dict.fromkeys((".czi", ".nd2", ".lif", ".oib", ".oif", ".oir", ".ims", ".vsi", ".zvi", ".dv"), _MICROSCOPE),
    **dict.fromkeys((".dcm", ".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".mnc"), _MEDICAL),
    **dict.fromkeys((".jp2", ".j2k", ".jxl", ".pgm", ".ppm", ".pbm", ".pnm", ".tga", ".psd", ".xcf"), _PICTURE),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw"), _PICTURE),
}


def ways_out(names: Iterable[str]) -> list[str]:
    """What to do about files that nothing here reads, a sentence for each kind of format, by the names alone.

    >>> ways_out(["a/IMG_1.HEIC", "notes.txt"])
    ['pictures of phones in HEIC or AVIF are not read: export them as JPEG or PNG']
    """
    suffixes = (f".{name.rpartition('.')[2].casefold()}" for name in names if "." in name)
    return list(dict.fromkeys(_WAYS[suffix] for suffix in suffixes if suffix in _WAYS))
