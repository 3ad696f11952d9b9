"""Features of TFDS datasets: their description in `features.json`, and their values in `tf.train.Example`s.

TFDS flattens nested features to paths such as `steps/observation/state`, and the elements of a sequence of steps
behind each other into one list. Tensors are lists of floats or integers, or strings of their raw bytes where their
encoding says so; images are strings of JPEG or PNG.
"""

import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec
from alula.datasets.formats.tfrecord import Values, floats, integers, strings
from alula.datasets.schema import DTYPES

STEPS = "steps"
"""The sequence that makes an episode; others are not read."""
PACKAGE = "tensorflow_datasets.core.features"
AS_BYTES = ("float16", "float64", "int8", "int16", "uint8", "uint16")
"""What lists of float32 and int64 would round or inflate, and `tf.io.decode_raw` knows."""
IMAGE_CHANNELS = (1, 3, 4)
IMAGE_DTYPES = ("uint8", "uint16")


@dataclass(frozen=True)
class Feature:
    """One array or text of a step or an episode."""

    path: str
    """`steps/observation/state`, `episode_metadata/file_path`, ..."""
    kind: str
    """"tensor", "image" or "text"."""
    shape: tuple[int, ...] = ()
    """Of one step; -1 where the data say it."""
    dtype: str = "uint8"
    encoding: str = "none"
    """Of tensors: "none", "bytes" or "zlib"."""
    description: str = ""

    @classmethod
    def of_field(cls, path: str, field: FieldSpec) -> "Feature":
        """How a field is written: images without loss, everything else to the bit."""
        picture = field.dtype == "uint8" and len(field.shape) == 3 and field.shape[-1] in IMAGE_CHANNELS
        if picture and field.name.startswith("observation.images."):
            return cls(path, "image", field.shape)
        return cls(path, "tensor", field.shape, field.dtype, "bytes" if field.dtype in AS_BYTES else "none")

    def decode(self, feature: memoryview) -> Shaped[ndarray, "steps *shape"]:
        """The values of all steps.

        Raises:
            DatasetError: they do not match the description.
        """
        if self.kind == "image":
            images = [self._decode_image(encoded) for encoded in strings(feature)]
            return np.stack(images) if images else np.zeros((0, *self.shape), self.dtype)
        if self.encoding != "none":
            return self._decode_raw(strings(feature))
        if self.dtype.startswith("float"):
            return self._reshape(floats(feature).astype(self.dtype, copy=False))
        return self._reshape(integers(feature).astype(self.dtype))

    def encode(self, values: Shaped[ndarray, "steps *shape"]) -> Values:
        """Inverse of `decode`."""
        if self.kind == "image":
            return [_encode_png(image) for image in values]
        if self.encoding == "bytes":
            return [np.ascontiguousarray(value).tobytes() for value in values]
        return values.reshape(-1) if self.dtype == "float32" else values.reshape(-1).astype(np.int64)

    def to_json(self) -> dict[str, Any]:
        """As in `features.json`."""
        if self.kind == "text":
            return {"pythonClassName": f"{PACKAGE}.text_feature.Text", "text": {}}
        shape = {"dimensions": [str(size) for size in self.shape]} if self.shape else {}
        if self.kind == "image":
            image = {"shape": shape, "dtype": self.dtype, "encodingFormat": "png"}
            return {"pythonClassName": f"{PACKAGE}.image_feature.Image", "image": image}
        tensor = {"shape": shape, "dtype": self.dtype, "encoding": self.encoding}
        return {"pythonClassName": f"{PACKAGE}.tensor_feature.Tensor", "tensor": tensor}

    def _decode_raw(self, parts: list[bytes]) -> Shaped[ndarray, "steps *shape"]:
        try:
            raw = [zlib.decompress(part) for part in parts] if self.encoding == "zlib" else parts
        except zlib.error as error:
            raise DatasetError(f"a tensor cannot be decompressed ({error})") from error
        needed = int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize
        for part in raw:
            if len(part) != needed:
                raise DatasetError(f"a tensor has {len(part)} bytes, {self.dtype} of shape {self.shape} needs {needed}")
        return np.frombuffer(b"".join(raw), self.dtype).reshape(len(raw), *self.shape)

    def _reshape(self, values: Shaped[ndarray, " values"]) -> Shaped[ndarray, "steps *shape"]:
        size = int(np.prod(self.shape))
        if len(values) % size:
            raise DatasetError(f"it has {len(values)} values, which are no whole number of steps of shape {self.shape}")
        return values.reshape(len(values) // size, *self.shape)

    def _decode_image(self, encoded: bytes) -> Shaped[ndarray, "height width channels"]:
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                pixels = np.asarray(image)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise DatasetError(f"an image of {len(encoded)} bytes cannot be decoded ({error})") from error
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        fits = [wanted in (-1, size) for wanted, size in zip(self.shape, pixels.shape, strict=True)]
        if not all(fits) or pixels.dtype != self.dtype:
            raise DatasetError(
                f"an image is {pixels.dtype} of shape {pixels.shape}, expected is {self.dtype} of shape {self.shape}"
            )
        return pixels


def _encode_png(image: Shaped[ndarray, "height width channels"]) -> bytes:
    buffer = io.BytesIO()
    # The fastest level: images of cameras hardly get smaller at higher ones.
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


@dataclass(frozen=True)
class Unsupported:
    """A feature that is left out, and why."""

    path: str
    reason: str


def flatten(description: dict[str, Any], path: str = "") -> Iterator[Feature | Unsupported]:
    """The features that `features.json` describes, in its order.

    Raises:
        DatasetError: a description has not the form that TFDS writes.
    """
    try:
        yield from _flatten(description, path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(f"features.json is not one that TFDS writes ({type(error).__name__}: {error})") from error


def _flatten(node: dict[str, Any], path: str) -> Iterator[Feature | Unsupported]:
    if "featuresDict" in node:
        for name, child in node["featuresDict"]["features"].items():
            yield from _flatten(child, f"{path}/{name}" if path else name)
    elif path == STEPS and node["pythonClassName"].endswith(".Dataset"):
        yield from _flatten(node["sequence"]["feature"], path)
    else:
        yield _leaf(node, path)


def _leaf(node: dict[str, Any], path: str) -> Feature | Unsupported:
    about = node.get("description", "")
    if "text" in node:
        return Feature(path, "text", description=about)
    if "classLabel" in node:
        return Feature(path, "tensor", (), "int64", description=about)
    kind = next((kind for kind in ("tensor", "image") if kind in node), None)
    if kind is None:
        return Unsupported(path, f"a feature of class {node['pythonClassName']}")
    dtype = {"bfloat16": "float32"}.get(node[kind]["dtype"], node[kind]["dtype"])
    shape = tuple(int(size) for size in node[kind]["shape"].get("dimensions", ()))
    if dtype in ("string", "object") and not shape:
        return Feature(path, "text", description=about)
    if kind == "image" and dtype in IMAGE_DTYPES:
        return Feature(path, kind, shape, dtype, description=about)
    if kind == "tensor" and dtype in DTYPES and min(shape, default=1) > 0:
        return Feature(path, kind, shape, dtype, node[kind].get("encoding", "none"), about)
    return Unsupported(path, f"a feature of type {dtype} and shape {shape}")


def to_json(features: Sequence[Feature], sequences: Sequence[str]) -> dict[str, Any]:
    """Inverse of `flatten`.

    Args:
        features: All of them.
        sequences: Paths of the features that are sequences, such as `steps`.
    """
    nested: dict[str, Any] = {}
    for feature in features:
        *parents, name = feature.path.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = feature
    return _node_to_json(nested, "", sequences)


def _node_to_json(node: dict[str, Any] | Feature, path: str, sequences: Sequence[str]) -> dict[str, Any]:
    if isinstance(node, Feature):
        return node.to_json()
    children = {name: _node_to_json(child, f"{path}/{name}".lstrip("/"), sequences) for name, child in node.items()}
    group = {"pythonClassName": f"{PACKAGE}.features_dict.FeaturesDict", "featuresDict": {"features": children}}
    if path not in sequences:
        return group
    sequence = {"feature": group, "length": "-1"}
    return {"pythonClassName": f"{PACKAGE}.dataset_feature.Dataset", "sequence": sequence}
