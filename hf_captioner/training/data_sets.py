"""The data sets of one run or one measurement: each with a weight and with what it is called -> their records."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hf_captioner.config import ValidatedConfig
from hf_captioner.errors import ConfigError, DataError
from hf_captioner.training.data import NAMELESS, Record, by_data_set, read_records
from hf_captioner.training.hub_data import PREFIX, hub_id
from hf_captioner.training.splits import DrawnSplits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSet(ValidatedConfig):
    """A data set as a command line or a recipe names it."""

    source: str
    """A folder, a file, or the id of a data set on the Hub."""
    weight: float = 1.0
    """How often an epoch of training shows one of its images, on average."""
    name: str | None = None
    """What the card calls it; None: its id on the Hub, or nothing if it lies on this machine."""

    def _check(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ConfigError(f"The weight of {self.source} is {self.weight:g}; expected a number above 0.")

    @property
    def card_name(self) -> str:
        """Raises DataError for a broken id.

        A folder of this machine is not named: it tells a card's readers nothing, and more than was meant.
        """
        return self.name or hub_id(self.source) or NAMELESS

    @property
    def label(self) -> str:
        """What the log calls it: its name, its id, or its folder, which stays on this machine."""
        path = Path(self.source).resolve()
        return self.name or hub_id(self.source) or (path.parent if path.is_file() else path).name

    def beside(self, folder: Path) -> "DataSet":
        """The same, its source taken relative to a folder, unless that is an absolute path or begins with `hf://`."""
        return self if self.source.startswith(PREFIX) else replace(self, source=str(folder.absolute() / self.source))


def given_data_sets(
    sources: Sequence[str], names: Sequence[str] | None, weights: Sequence[float] | None = None
) -> tuple[DataSet, ...]:
    """The data sets of a command line. Raises ConfigError unless there is a name and a weight for each, or none."""
    for flag, values in ("--dataset", names), ("--weights", weights):
        if values is not None and len(values) != len(sources):
            raise ConfigError(
                f"{flag} has {len(values)} for {len(sources)} data sets ({', '.join(sources)}); give one for each, in "
                "their order."
            )
    return tuple(
        DataSet(source, weights[index] if weights else 1.0, names[index] if names else None)
        for index, source in enumerate(sources)
    )


def load_data_sets(
    data_sets: Sequence[DataSet],
    *,
    split_file: Path | None = None,
    seed: int | None = None,
    allow_outside_paths: bool = False,
) -> list[Record]:
    """The records of every data set, one set after the other; arguments and errors as of `load_records`."""
    splits, records = DrawnSplits(split_file, seed), list[Record]()
    labels, card_names = (_distinct(names) for names in _names(data_sets))
    for data_set, label, card_name in zip(data_sets, labels, card_names, strict=True):
        for record in read_records(data_set.source, splits, allow_outside_paths=allow_outside_paths):
            records.append(replace(record, data_set=label, card_name=card_name, weight=data_set.weight))
    splits.save()
    return records


def load_split(
    data_sets: Sequence[DataSet],
    split: str,
    *,
    split_file: Path | None = None,
    model: str | None = None,
    allow_outside_paths: bool = False,
) -> list[Record]:
    """The records of one split, which is never drawn anew; the log tells data sets that have none.

    Without a `split_file`, the splits.json beside a model's folder is used, as a training run leaves it there.
    Raises DataError as `load_records` does, and where the split is empty.
    """
    beside = Path(model).parent / "splits.json" if model else None
    split_file = split_file or (beside if beside and beside.exists() else None)
    found = by_data_set(load_data_sets(data_sets, split_file=split_file, allow_outside_paths=allow_outside_paths))
    kept = {label: [record for record in records if record.split == split] for label, records in found.items()}
    if not any(kept.values()):
        raise DataError(f"{', '.join(data_set.source for data_set in data_sets)} has no {split} split.")
    for label, records in kept.items():
        if not records:
            logger.info("%s has no %s split and is left out.", label, split)
    return [record for records in kept.values() for record in records]


def _names(data_sets: Sequence[DataSet]) -> tuple[list[str], list[str]]:
    return [data_set.label for data_set in data_sets], [data_set.card_name for data_set in data_sets]


def _distinct(names: Iterable[str]) -> list[str]:
    """The names, with a number behind each that was there before."""
    found: list[str] = []
    for name in names:
        number, distinct = 2, name
        while distinct in found:
            number, distinct = number + 1, f"{name} ({number})"
        found.append(distinct)
    return found
