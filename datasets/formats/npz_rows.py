"""NumPy archives (`.npz`) read and written row by row, so that no array need fit into memory."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from alula.core.errors import DatasetError
from alula.datasets.schema import DTYPES


class Rows:
    """An array of an archive, read row by row without loading it whole."""

    def __init__(self, archive: ZipFile, name: str) -> None:
        """Read the header of the array `name`."""
        self.name = name
        self._file = archive.open(f"{name}.npy")
        version = np.lib.format.read_magic(self._file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, fortran, self.dtype = read_header(self._file)
        if self.dtype.name not in DTYPES or not self.shape or (fortran and len(self.shape) > 1):
            raise DatasetError(
                f"the array '{name}' is {self.dtype} {self.shape}{' in Fortran order' if fortran else ''}; needed are "
                f"plain numbers, rows first: save it again with np.ascontiguousarray"
            )

    def take(self, count: int) -> Shaped[ndarray, "count ..."]:
        """The next `count` rows."""
        row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        content = self._file.read(count * row_bytes)
        if len(content) < count * row_bytes:
            raise DatasetError(f"the array '{self.name}' {self.shape} has fewer rows than traj_lengths says")
        return np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:]).astype(self.dtype.newbyteorder("="))


@contextmanager
def reading(path: Path) -> Iterator[ZipFile]:
    """The open archive; whatever is wrong with it becomes one error."""
    try:
        with ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise DatasetError(f"there is no file '{path}'; check the path") from error
    except (OSError, BadZipFile, zlib.error, ValueError, EOFError, KeyError) as error:
        raise DatasetError(
            f"'{path}' is not a readable .npz archive ({error}); it may be truncated or of another kind: fetch it again"
        ) from error
    except DatasetError as error:
        raise DatasetError(f"'{path}': {error}") from error


def has_array(archive: ZipFile, name: str) -> bool:
    """Whether the archive holds an array of that name."""
    return f"{name}.npy" in archive.namelist()


def write_rows(
    archive: ZipFile,
    name: str,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    blocks: Iterator[Shaped[ndarray, "..."]],
) -> None:
    """Add an array to the archive, block after block.

    Args:
        archive: Open for writing.
        name: Of the array.
        shape: Of all blocks together.
        dtype: Of its elements.
        blocks: Its rows.
    """
    header = {"shape": shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(np.dtype(dtype))}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(block.astype(dtype, copy=False).tobytes())
