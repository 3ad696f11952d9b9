"""LeRobot's columns: what one is called and typed in `info.json`, Arrow and Hugging Face's `datasets`, and its values.

Values pass between NumPy and Arrow bit for bit. A feature of shape (1,) is a column of plain values, one with one
axis of fixed-length lists, one with two to five axes of nested lists that carry the name of Hugging Face's extension
type. Pictures are PNG files inside the column, or frames of a video outside it.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Shaped, UInt8
from numpy import ndarray

from alula.core.errors import DatasetError
from alula.datasets.images import decode_image, encode_png

IMAGE, VIDEO, STRING = "image", "video", "string"
MAX_AXES = 5
"""Hugging Face's extension types end at five axes."""
IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
IMAGE_AXES = ["height", "width", "channels"]


@dataclass(frozen=True)
class Feature:
    """One entry of `features` in `info.json`."""

    name: str
    dtype: str
    """NumPy's name of the element type, or `image`, `video`, `string`."""
    shape: tuple[int, ...]
    """Of one step; never empty."""
    names: Any = None
    """Of the elements of the axis, or of the axes of a picture."""

    def to_info(self) -> dict[str, Any]:
        """Plain values for `info.json`."""
        return {"dtype": self.dtype, "shape": list(self.shape), "names": self.names}

    @property
    def picture(self) -> bool:
        """Whether it holds pictures, singly or as a video."""
        return self.dtype in (IMAGE, VIDEO)

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Height, width and 3 colours, as decoded; some datasets name the channels first."""
        first, second, third = self.shape
        channels_first = isinstance(self.names, list) and str(self.names[0]).startswith("channel")
        return (second, third, 3) if channels_first else (first, second, 3)


def _arrow_field(feature: Feature) -> pa.Field:
    if feature.dtype == IMAGE:
        return pa.field(feature.name, IMAGE_TYPE)
    kind = pa.from_numpy_dtype(np.dtype(feature.dtype))
    if feature.shape == (1,):
        return pa.field(feature.name, kind)
    if len(feature.shape) == 1:
        return pa.field(feature.name, pa.list_(kind, feature.shape[0]))
    for _ in feature.shape:
        kind = pa.list_(kind)
    # What Hugging Face's own writer stores; as metadata, it needs none of its classes here.
    extension = {
        "ARROW:extension:name": f"datasets.features.features.Array{len(feature.shape)}DExtensionType",
        "ARROW:extension:metadata": json.dumps([list(feature.shape), feature.dtype]),
    }
    return pa.field(feature.name, kind, metadata=extension)


def _hugging_face_type(feature: Feature) -> dict[str, Any]:
    if feature.dtype == IMAGE:
        return {"_type": "Image"}
    value = {"dtype": feature.dtype, "_type": "Value"}
    if feature.shape == (1,):
        return value
    if len(feature.shape) == 1:  # Newer versions call it List, and read both; older ones only this.
        return {"feature": value, "length": feature.shape[0], "_type": "Sequence"}
    return {"shape": list(feature.shape), "dtype": feature.dtype, "_type": f"Array{len(feature.shape)}D"}


def arrow_schema(features: list[Feature]) -> pa.Schema:
    """Columns of a data file; videos have none."""
    columns = [feature for feature in features if feature.dtype != VIDEO]
    types = {feature.name: _hugging_face_type(feature) for feature in columns}
    metadata = {"huggingface": json.dumps({"info": {"features": types}})}
    return pa.schema([_arrow_field(feature) for feature in columns], metadata=metadata)


def to_arrow(feature: Feature, values: Shaped[ndarray, "steps *shape"]) -> pa.Array:
    """The column's values, bit for bit."""
    if feature.dtype == IMAGE:
        contents = pa.array([encode_png(image) for image in values], pa.binary())
        paths = pa.array([f"frame-{index:06d}.png" for index in range(len(values))], pa.string())
        return pa.StructArray.from_arrays([contents, paths], fields=list(IMAGE_TYPE))
    column = pa.array(np.ascontiguousarray(values).reshape(-1))
    if feature.shape == (1,):
        return column
    if len(feature.shape) == 1:
        return pa.FixedSizeListArray.from_arrays(column, feature.shape[0])
    for size in reversed(feature.shape):
        offsets = pa.array(np.arange(0, len(column) + 1, size, dtype=np.int32))
        column = pa.ListArray.from_arrays(offsets, column)
    return column


def from_arrow(feature: Feature, column: pa.ChunkedArray, source: str) -> Shaped[ndarray, "steps *shape"]:
    """Inverse of `to_arrow`, whichever kind of list a writer chose.

    Args:
        feature: What the column should hold.
        column: The column.
        source: The file it is from, for messages.

    Raises:
        DatasetError: values are missing, or have another type or shape.
    """
    steps = len(column)
    where = f"column '{feature.name}' of '{source}'"
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if feature.dtype == IMAGE:
        return _decoded(feature, array, where)
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    while pa.types.is_nested(array.type) and not pa.types.is_struct(array.type):
        if array.null_count:
            raise DatasetError(f"{where} has missing values, {feature.dtype} needs one at every step; fill them in")
        array = array.flatten()
    if array.null_count:
        raise DatasetError(f"{where} has missing values, {feature.dtype} needs one at every step; fill them in")
    size = int(np.prod(feature.shape))
    if len(array) != steps * size or str(_numpy_dtype(array.type)) != feature.dtype:
        raise DatasetError(
            f"{where} holds {len(array)} values of type {array.type}, but info.json says {feature.dtype} of shape "
            f"{feature.shape} at {steps} steps; the dataset is damaged, restore it from a copy"
        )
    values = array.to_numpy(zero_copy_only=False)
    return np.array(values, dtype=feature.dtype).reshape(steps, *feature.shape)


def _numpy_dtype(kind: pa.DataType) -> Any:
    try:
        return np.dtype(kind.to_pandas_dtype())
    except NotImplementedError:
        return kind


def _decoded(feature: Feature, array: pa.StructArray, where: str) -> UInt8[ndarray, "steps height width 3"]:
    images = np.empty((len(array), *feature.picture_shape), np.uint8)
    for index, picture in enumerate(array):
        content = picture["bytes"].as_py() if pa.types.is_struct(array.type) else None
        if content is None:
            raise DatasetError(f"{where} has no picture at step {index}; embed the pictures' files in the column")
        image = decode_image(content, where)
        if image.shape != images.shape[1:]:
            raise DatasetError(f"{where} has a picture of shape {image.shape}, info.json says {images.shape[1:]}")
        images[index] = image
    return images
