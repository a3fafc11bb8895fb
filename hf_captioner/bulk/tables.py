"""Images in the rows of tables: Parquet files and the data sets of `datasets`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hf_captioner.bulk.rows import image_in_row, image_in_value, undecoded
from hf_captioner.bulk.shards import SHARD_SIZE, NamedImage, Shard, UnreadableSource

TABLE_SUFFIX = ".parquet"
ROWS_PER_READ = 32
STREAMED = {"buffer_size": 1 << 20, "pre_buffer": False}
"""How a file is opened so that a large row group is never in memory as a whole."""


@dataclass(frozen=True)
class ParquetShard:
    """Whole row groups of a Parquet file: these can be read without reading what stands before them."""

    path: str
    column: str
    """The column that holds the images' bytes."""
    groups: tuple[int, ...]
    start: int
    """The first row."""
    count: int

    def __iter__(self) -> Iterator[NamedImage]:
        import pyarrow.parquet

        row = self.start
        try:
            with pyarrow.parquet.ParquetFile(self.path, **STREAMED) as file:
                for batch in file.iter_batches(ROWS_PER_READ, row_groups=list(self.groups), columns=[self.column]):
                    for value in batch.column(0):
                        name = f"{self.path}#{row}"
                        yield NamedImage(name, image_in_value(value.as_py(), name))
                        row += 1
        except (OSError, pyarrow.ArrowException) as error:
            yield from UnreadableSource(self.path, f"the table cannot be read any further ({error})")


@dataclass(frozen=True)
class DatasetShard:
    """Consecutive rows of a data set that `save_to_disk` wrote."""

    path: str
    start: int
    count: int

    def __iter__(self) -> Iterator[NamedImage]:
        import datasets
        import pyarrow

        try:
            rows = undecoded(datasets.load_from_disk(self.path))
            for row in range(self.start, self.start + self.count):
                name = f"{self.path}#{row}"
                yield NamedImage(name, image_in_row(rows[row], name))
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            yield from UnreadableSource(self.path, f"the saved data set cannot be read any further ({error})")


def parquet_shards(path: str) -> list[Shard]:
    """The shards of a Parquet file, from its footer alone."""
    try:
        import pyarrow.parquet
    except ImportError:
        return [UnreadableSource(path, "Parquet needs pyarrow; run: pip install 'hf-captioner[bulk]'")]
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    except (OSError, pyarrow.ArrowException) as error:
        return [UnreadableSource(path, f"the table cannot be read ({error})")]
    columns = [field.name for field in schema if _holds_images(field.type)]
    if not columns:
        found = ", ".join(schema.names)
        return [UnreadableSource(path, f"the table has no column of images; found {found}")]
    column = "image" if "image" in columns else columns[0]
    shards: list[Shard] = []
    groups, start, count = list[int](), 0, 0
    for group, size in enumerate(sizes):
        groups.append(group)
        count += size
        if count >= SHARD_SIZE or group == len(sizes) - 1:
            shards.append(ParquetShard(path, column, tuple(groups), start, count))
            groups, start, count = [], start + count, 0
    return [shard for shard in shards if shard.count]


def _holds_images(kind: Any) -> bool:
    """Whether a column's Arrow type holds files' bytes: by themselves or, as `datasets` stores them, beside a path."""
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return any(_holds_images(kind.field(index).type) for index in range(kind.num_fields))
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def is_saved_dataset(names: set[str]) -> bool:
    """Whether a folder that holds these names is a data set that `save_to_disk` wrote."""
    return {"state.json", "dataset_info.json"} <= names


def dataset_shards(folder: str) -> list[Shard]:
    """The shards of a data set that `save_to_disk` wrote."""
    try:
        import datasets
    except ImportError:
        return [UnreadableSource(folder, "a saved data set needs datasets; run: pip install 'hf-captioner[bulk]'")]
    try:
        count = len(datasets.load_from_disk(folder))
    except (OSError, ValueError, KeyError) as error:
        return [UnreadableSource(folder, f"the saved data set cannot be read ({error})")]
    return [DatasetShard(folder, start, min(SHARD_SIZE, count - start)) for start in range(0, count, SHARD_SIZE)]
