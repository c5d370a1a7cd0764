"""What a run was begun with, read from its folder again."""

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from useg.config import Config, load_config
from useg.data.fingerprint import Fingerprint
from useg.data.labels import LabelMapping
from useg.data.reading import Sample
from useg.data.views import ViewFiles
from useg.errors import DamagedFile, InputError
from useg.experiments.prepare import Prepared, recall
from useg.experiments.recording import files_of_run
from useg.runs.record import RunFolder
from useg.train.plan import Plan, load_plan


@dataclass(frozen=True)
class Inputs:
    """What a run was begun with, as its folder has it.

    Attributes:
        config, plan, mapping, fingerprint: as they were.
        samples: their refs are paths of this machine for a folder, those of the version for a view.
        spaces: size of the images of a view over space, by key.
    """

    config: Config
    plan: Plan
    mapping: LabelMapping
    fingerprint: Fingerprint
    samples: list[Sample]
    spaces: dict[str, tuple[int, ...]]


def recall_inputs(folder: RunFolder) -> Inputs:
    """Read what a run was begun with.

    Raises:
        DamagedFile: files of the run are missing or not what was written.
    """
    stored = folder.read_json
    try:
        config = load_config(None, **stored("config.json"))
        rows = [
            row | {"images": tuple(row["images"]), "labels": tuple(row["labels"])} for row in stored("samples.json")
        ]
        spaces = {row["key"]: tuple(row.pop("space")) for row in rows if "space" in row}
        samples = [Sample(**row) for row in rows]
        mapping = LabelMapping.model_validate(stored("mapping.json"))
        fingerprint = Fingerprint.model_validate(stored("fingerprint.json"))
    except (TypeError, KeyError, ValidationError) as error:
        raise DamagedFile(f"{folder.path}: its files are not those that were written: {error}") from error
    return Inputs(config, load_plan(folder.plan), mapping, fingerprint, samples, spaces)


def recall_run(folder: RunFolder, data: Path | None) -> tuple[Prepared, Config]:
    """What a run was begun with; files are compared with what they were when they are read.

    Raises:
        InputError: samples are missing. DamagedFile: files of the run are missing or not what was written.
    """
    record, inputs = folder.record(), recall_inputs(folder)
    samples = inputs.samples
    if data is not None:
        samples = [moved(sample, record["data"], str(data.absolute())) for sample in samples]
    source = files_of_run(folder.home, record, samples)
    if isinstance(source, ViewFiles):
        source.know(inputs.spaces)
    prepared = recall(samples, inputs.config, inputs.plan, inputs.mapping, inputs.fingerprint, source)
    mine = [dict(zip(prepared.samples.keys, splits, strict=True)) for splits in prepared.fold_splits]
    if folder.read_json("splits.json") != mine:
        raise InputError(f"{folder.id}: its splits cannot be had again; the sizes of its images have changed")
    return prepared, inputs.config


def moved(sample: Sample, before: str, after: str) -> Sample:
    """The sample with its files below another folder."""

    def there(ref: str) -> str:
        return after + ref.removeprefix(before) if ref.startswith(before) else ref

    return replace(
        sample,
        images=tuple(map(there, sample.images)),
        labels=tuple(map(there, sample.labels)),
        region=None if sample.region is None else there(sample.region),
    )


def home_of_run(folder: RunFolder) -> Path | str:
    """Where a run belongs: the home that has its data, if that is not the folder it lies in."""
    origin = folder.record().get("origin") or {}
    return origin.get("home") or folder.home
