"""The splits of data sets that name none: drawn once, and kept in the training run's splits.json."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from hf_captioner.atomic import write_text
from hf_captioner.errors import DataError
from hf_captioner.training.rows import read_text, split_named

Splits = dict[str, str]
"""An image's name -> its split."""


class DrawnSplits:
    """The splits that `file` keeps, or, where it is not there and a seed is given, 80 / 10 / 10 by that seed.

    The file is JSON: the Splits of a data set, or a list of them for several. A data set's are those that name exactly
    its images, so neither the order of the data sets counts, nor which of them are read.
    """

    def __init__(self, file: Path | None, seed: int | None) -> None:
        """Without a seed no split is ever drawn."""
        self.file, self.seed = file, seed
        self._drawn: list[Splits] = []

    def of(self, names: Sequence[str]) -> Splits:
        """The splits of a data set's images. Raises DataError where they are not kept and may not be drawn."""
        if self.file is not None and self.file.exists():
            return self._kept(self.file, names)
        if self.seed is None:
            raise DataError(
                f"The data names no splits, and {self.file or 'no file'} does; give the training run's splits.json as "
                "--splits."
            )
        shuffled = sorted(names)
        random.Random(self.seed).shuffle(shuffled)
        tenth = max(1, len(shuffled) // 10)
        chosen = dict.fromkeys(names, "train")
        chosen |= dict.fromkeys(shuffled[:tenth], "validation") | dict.fromkeys(shuffled[tenth : 2 * tenth], "test")
        if chosen not in self._drawn:
            self._drawn.append(chosen)
        return chosen

    def save(self) -> None:
        """Keep what was drawn: after all data sets were read, so that the file is whole."""
        if self.file is not None and self._drawn:
            write_text(self.file, json.dumps(self._drawn if len(self._drawn) > 1 else self._drawn[0], indent=0))

    @staticmethod
    def _kept(file: Path, names: Sequence[str]) -> Splits:
        try:
            found = json.loads(read_text(file))
        except (ValueError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{file} is not JSON ({error}); expected a training run's splits.json.") from error
        kept = found if isinstance(found, list) else [found]
        if not kept or not all(isinstance(splits, dict) for splits in kept):
            raise DataError(f"{file} holds no splits; expected a training run's splits.json.")
        for splits in kept:
            if set(splits) == set(names):
                return {name: split_named(split, file) for name, split in splits.items()}
        raise DataError(
            f"{file} splits {' and '.join(str(len(splits)) for splits in kept)} images, the data has {len(names)} and "
            "not the same; delete it to split anew."
        )
