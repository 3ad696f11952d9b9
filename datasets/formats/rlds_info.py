"""`dataset_info.json` of TFDS: a dataset's name, where it comes from, and the lengths of its files."""

import re
from typing import Any

from alula.core.errors import DatasetError
from alula.datasets.formats.format import Contents

INFO_FILE = "dataset_info.json"
VERSION = "1.0.0"
"""TFDS wants one; ours does not count."""


def tfds_name(name: str) -> str:
    """A name that TFDS permits: lower case, digits and underscores."""
    cleaned = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_")
    return cleaned if cleaned[:1].isalpha() else f"dataset_{cleaned}".strip("_")


def describe(name: str, lengths: list[int], num_bytes: int, contents: Contents) -> dict[str, Any]:
    """`dataset_info.json` of a dataset that we write.

    Args:
        name: One that TFDS permits.
        lengths: Records in each file.
        num_bytes: Of all files.
        contents: What the dataset holds.
    """
    split = {
        "name": "train",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "numBytes": str(num_bytes),
        "shardLengths": [str(length) for length in lengths],
    }
    return {
        "name": name,
        "version": VERSION,
        "fileFormat": "tfrecord",
        "description": str(contents.metadata.get("provenance", "")),
        "redistributionInfo": {"license": str(contents.metadata.get("licence", ""))},
        "splits": [split],
    }


def shard_lengths(info: dict[str, Any]) -> dict[str, list[int]]:
    """Records in each file of each split; none where the description does not say.

    Raises:
        DatasetError: the description has not the form that TFDS writes.
    """
    try:
        splits = info.get("splits", ())
        return {split["name"]: [int(length) for length in split.get("shardLengths", ())] for split in splits}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{INFO_FILE} is not one that TFDS writes ({type(error).__name__}: {error}); fetch it again"
        ) from error


def about(info: dict[str, Any]) -> dict[str, Any]:
    """Metadata of others' datasets."""
    name, version = info.get("name", "unnamed"), info.get("version", "")
    metadata = {
        "name": name,
        "provenance": f"RLDS dataset {name} {version}".strip(),
        "success_recorded": False,
    }
    metadata |= {key: info[key] for key in ("description", "citation") if info.get(key)}
    licence = info.get("redistributionInfo", {}).get("license")
    return {**metadata, "licence": licence} if licence else metadata
