"""Which files are code that may be kept: no images, no data, no secrets, and none that are large."""

import fnmatch
import re
import stat
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from useg.runs.git import as_text


@dataclass(frozen=True)
class Limits:
    """How much code is kept.

    Attributes:
        file_bytes: of one file.
        total_bytes: of all that is kept of one repository.
        files: how many changed, and how many untracked ones, are kept.
        listed_bytes: of the names of untracked files that are looked at.
        seconds: that git may take.
        named: files left out for the same reason that are named; the others are counted.
    """

    file_bytes: int = 2**20
    total_bytes: int = 16 * 2**20
    files: int = 1000
    listed_bytes: int = 8 * 2**20
    seconds: float = 20.0
    named: int = 20


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SOURCE = _words(
    ".py .pyi .pyx .pxd .pxi .c .cc .cpp .cxx .cu .cuh .h .hh .hpp .rs .go .jl .r .m .f90 .java .kt .js .ts .css .html "
    ".sh .bash .zsh .fish .bat .ps1 .sql .proto .cmake .toml .yaml .yml .cfg .ini .conf .j2 .jinja .md .rst .nf .smk "
    ".wdl .ijm .groovy .lua .pl .rb .tcl"
)
_SOURCE_NAMES = _words(
    "makefile dockerfile containerfile snakefile justfile cmakelists.txt manifest.in .gitignore .gitattributes "
    ".gitmodules .dockerignore"
)
_REQUIREMENTS = re.compile(r"(requirements|constraints)[\w.-]*\.(txt|in)")
_IMAGES = _words(
    ".png .jpg .jpeg .jpe .tif .tiff .gif .bmp .webp .jp2 .j2k .jxl .avif .heic .ppm .pgm .pbm .pnm .svg .ico .psd "
    ".exr .hdr .dcm .nii .nrrd .mha .mhd .mrc .czi .lif .nd2 .oib .oif .oir .svs .ndpi .vsi .lsm .ims .qptiff .mrxs "
    ".mp4 .avi .mov .mkv .webm .m4v .pdf .raw .dng .zvi .scn .bif"
)
_MODELS = _words(
    ".useg .pt .pth .ckpt .safetensors .onnx .h5 .hdf5 .keras .pb .tflite .pkl .pickle .joblib .model .gguf .engine "
    ".mlmodel .caffemodel .weights .pte"
)
_DATA = _words(
    ".csv .tsv .parquet .feather .arrow .npy .npz .mat .zarr .n5 .zip .tar .gz .tgz .bz2 .xz .7z .rar .zst .lz4 .db "
    ".sqlite .sqlite3 .duckdb .xls .xlsx .ods .jsonl .ndjson .dat .lmdb .mdb .tfrecord .rec .bag .log .las .laz .shp "
    ".gpkg .geojson .fcs .sav .rds .rdata"
)
_SECRETS = (
    ".env", ".env.*", "*.env", ".envrc", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.ppk", "*.asc",
    "*.gpg", "*.pgp", "*.kdbx", "*.der", "*.p8", "*.pkcs8", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*",
    "credentials*", "*.credentials", "*_credentials.*", "*-credentials.*", ".git-credentials", "token", "tokens",
    "token.*", "tokens.*", "*.token", "*.tokens", "*_token", "*-token", "*_token.*", "*-token.*", "*_tokens.*",
    "*-tokens.*", ".*token", "secret", "secret.*", "secrets", "secrets.*", "*.secret", "*.secrets", "*_secret.*",
    "*_secrets.*", "*-secret.*", "*-secrets.*", "password*", "passwd*", ".netrc", "_netrc", ".pgpass", ".htpasswd",
    ".npmrc", ".pypirc", ".s3cfg", ".boto", "kubeconfig", "*.kubeconfig", "service-account*", "service_account*",
    "api_key*", "apikey*", "api-key*", ".ssh", ".gnupg", ".aws", ".azure", ".kube",
)  # fmt: skip
_SECRET_NAME = re.compile("|".join(fnmatch.translate(pattern) for pattern in _SECRETS))
_SECRET_CONTENT = re.compile(
    rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY"
    rb"|PuTTY-User-Key-File-\d"
    rb"|\bA(?:KIA|SIA)[0-9A-Z]{16}\b"
    rb"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}|\bglpat-[\w-]{20,}"
    rb"|\bhf_[A-Za-z0-9]{30,}|\bsk-(?:proj-|ant-)?[\w-]{32,}|\bxox[abeoprs]-[\w-]{10,}|\bAIza[\w-]{35}"
    rb"|\bpypi-[\w-]{50,}|\bhooks\.slack\.com/services/[\w/]{20,}"
    rb"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
)


def why_not(path: bytes, *, is_new: bool) -> str | None:
    """Why a file is not kept, by its name alone; None for one that may be.

    Args:
        path: in the repository.
        is_new: whether git does not know it; then only what is known for source is kept.
    """
    parts = path.decode("utf-8", "replace").lower().split("/")
    if _SECRET_NAME.fullmatch(parts[-1]) or any(map(_is_secret_folder, parts[:-1])):
        return "looks like a secret"
    endings = {"." + ending for ending in parts[-1].split(".")[1:]}
    last = "." + parts[-1].rpartition(".")[2] if "." in parts[-1] else ""
    if last in _IMAGES or ".nii" in endings:
        return "an image"
    if last == ".ipynb":
        return "a notebook, which may hold images"
    if last in _MODELS:
        return "a model"
    if last in _DATA or ".zarr" in {"." + part.rpartition(".")[2] for part in parts[:-1]}:
        return "data"
    if is_new and not (last in SOURCE or parts[-1] in _SOURCE_NAMES or _REQUIREMENTS.fullmatch(parts[-1])):
        return "not known to git, and not known for source"
    return None


@lru_cache(1000)
def _is_secret_folder(name: str) -> bool:
    return _SECRET_NAME.fullmatch(name) is not None


def looks_secret(content: bytes) -> bool:
    """Whether there is something like a private key or a token in it."""
    return _SECRET_CONTENT.search(content) is not None


def size_of(mode: int, size: int, limits: Limits) -> str | None:
    """Why what lies there is not read; None for a regular file or a link of allowed size."""
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        return "not a regular file"
    if size > limits.file_bytes:
        return f"larger than {limits.file_bytes:,} bytes"
    return None


@dataclass
class LeftOut:
    """What is not kept, and why: the first of each reason by name, the others counted.

    Attributes:
        limits: how many are named.
    """

    limits: Limits
    _named: list[tuple[str, str]] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, path: bytes, why: str) -> None:
        """One more."""
        self._counts[why] = self._counts.get(why, 0) + 1
        if self._counts[why] <= self.limits.named:
            self._named.append((as_text(path), why))

    def as_list(self) -> list[dict[str, Any]]:
        """[{"path", "why"}], and {"path": "*", "why", "more"} for those that are only counted."""
        more = {why: count - self.limits.named for why, count in self._counts.items() if count > self.limits.named}
        return [
            *({"path": path, "why": why} for path, why in sorted(self._named)),
            *({"path": "*", "why": why, "more": count} for why, count in sorted(more.items())),
        ]


__all__ = ["SOURCE", "LeftOut", "Limits", "looks_secret", "size_of", "why_not"]
