"""Images of any kind, as a request holds them."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from typing import Any, Dict, List, Mapping, Sequence, Union

from ._errors import InvalidImage

#: A path, the bytes of an image file, a PIL image, an array of height × width × channels of uint8,
#: or an image of a ``datasets`` column that is not decoded: ``{"bytes": …, "path": …}``.
Image = Any

# Modes of PIL that PNG holds without loss of what a verifier sees.
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


def encode_image(image: Image) -> Dict[str, str]:
    """``{"path": …}`` for a path, else ``{"base64": …}``, the bytes of an image file.

    Paths become absolute. PIL images become PNG files, turned as their EXIF orientation says, like
    images that are read from files.
    """
    if isinstance(image, (str, os.PathLike)):
        return {"path": os.path.abspath(os.path.expanduser(os.fsdecode(image)))}
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _base64(bytes(image))
    if isinstance(image, Mapping):
        if image.get("bytes") is not None:
            return _base64(bytes(image["bytes"]))
        if image.get("path") is not None:
            return encode_image(image["path"])
    if _is_pil(image):
        return _base64(_png_of_pil(image))
    if hasattr(image, "__array_interface__") or hasattr(image, "__array__"):
        return _base64(_png_of_array(image))
    raise InvalidImage(
        f"an image is a {type(image).__name__}",
        hint="give a path, the bytes of an image file, a PIL image, or a numpy array of "
        "height × width × 3 of uint8",
    )


def encode_images(images: Sequence[Image]) -> List[Dict[str, str]]:
    """The same of several; an object that occurs more than once is encoded once."""
    encoded: Dict[int, Dict[str, str]] = {}
    result = []
    for at, image in enumerate(images):
        if id(image) not in encoded:
            try:
                encoded[id(image)] = encode_image(image)
            except InvalidImage as error:
                message = f"images[{at}]: {error.message}"
                raise InvalidImage(message, hint=error.hint) from error.__cause__
        result.append(encoded[id(image)])
    return result


def image_list(images: Union[Image, Sequence[Image]], count: int) -> List[Image]:
    """One image for each of ``count`` texts; a single image is that of all of them."""
    if isinstance(images, (list, tuple)):
        if len(images) != count:
            raise InvalidImage(f"there are {len(images)} images for {count} texts")
        return list(images)
    return [images] * count


def _base64(data: bytes) -> Dict[str, str]:
    if not data:
        raise InvalidImage("an image has no bytes")
    return {"base64": base64.b64encode(data).decode("ascii")}


def _is_pil(image: Image) -> bool:
    return any(
        kind.__module__.startswith("PIL.") and kind.__name__ == "Image"
        for kind in type(image).__mro__
    )


def _png_of_pil(image: Image) -> bytes:
    from PIL import ImageOps

    try:
        image = ImageOps.exif_transpose(image)
        if image.mode not in _PNG_MODES:
            image = image.convert("RGB")
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", compress_level=1)
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidImage(f"a PIL image cannot be read: {error}") from error
    return buffer.getvalue()


def _png_of_array(image: Image) -> bytes:
    import numpy

    array = numpy.asarray(image)
    shape = " × ".join(str(side) for side in array.shape)
    hint = "an array is height × width × channels (1, 3 or 4) of uint8, from 0 to 255"
    if array.dtype != numpy.uint8:
        raise InvalidImage(f"an image is an array of {array.dtype}", hint=hint)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InvalidImage(f"an image is an array of {shape}", hint=hint)
    height, width, channels = array.shape
    rows = numpy.zeros((height, 1 + width * channels), dtype=numpy.uint8)
    rows[:, 1:] = array.reshape(height, width * channels)
    colour = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + checksum
