"""Images of every kind, as requests hold them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, Dict

import pytest

from fisao import InvalidImage
from fisao._images import encode_image, encode_images

numpy = pytest.importorskip("numpy")
PIL_Image = pytest.importorskip("PIL.Image")


def decoded(encoded: Dict[str, str]) -> Any:
    assert set(encoded) == {"base64"}
    return PIL_Image.open(io.BytesIO(base64.b64decode(encoded["base64"])))


def pixels(height: int = 5, width: int = 7, channels: int = 3) -> Any:
    return numpy.random.default_rng(0).integers(
        0, 256, size=(height, width, channels), dtype=numpy.uint8
    )


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert encode_image("a.png") == {"path": str(tmp_path / "a.png")}
    assert encode_image(Path("a.png")) == {"path": str(tmp_path / "a.png")}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_sent_as_they_are(kind: Any) -> None:
    assert encode_image(kind(b"\x89PNG")) == {"base64": base64.b64encode(b"\x89PNG").decode()}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_keep_their_pixels(channels: int) -> None:
    array = pixels(channels=channels)
    image = decoded(encode_image(array))
    assert image.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    assert (numpy.asarray(image).reshape(array.shape) == array).all()


def test_grey_and_sliced_arrays() -> None:
    grey = pixels(channels=1)[:, :, 0]
    assert (numpy.asarray(decoded(encode_image(grey))) == grey).all()
    sliced = pixels(20, 20)[::2, ::-3]
    assert (numpy.asarray(decoded(encode_image(sliced))) == sliced).all()


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (numpy.zeros((4, 4, 3), dtype=numpy.float32), "float32"),
        (numpy.zeros((3, 4, 5), dtype=numpy.uint8), "3 × 4 × 5"),
        (numpy.zeros((0, 4, 3), dtype=numpy.uint8), "0 × 4 × 3"),
        (numpy.zeros((1, 4, 4, 3), dtype=numpy.uint8), "1 × 4 × 4 × 3"),
    ],
)
def test_other_arrays_are_refused(array: Any, what: str) -> None:
    with pytest.raises(InvalidImage, match=what) as caught:
        encode_image(array)
    assert "uint8" in str(caught.value)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "F", "HSV"])
def test_pil_images_of_every_mode(mode: str) -> None:
    image = PIL_Image.fromarray(pixels()).convert("L" if mode == "LA" else "RGB").convert(mode)
    sent = decoded(encode_image(image)).convert("RGB")
    assert sent.size == (7, 5)
    assert (numpy.asarray(sent) == numpy.asarray(image.convert("RGB"))).all()


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = PIL_Image.fromarray(pixels(5, 7))
    exif = image.getexif()
    exif[0x0112] = 6  # To be turned by 90 degrees.
    image.save(tmp_path / "a.jpg", exif=exif)
    with PIL_Image.open(tmp_path / "a.jpg") as opened:
        sent = decoded(encode_image(opened))
    assert sent.size == (5, 7)
    assert 0x0112 not in sent.getexif()


def test_damaged_pil_image_is_refused(tmp_path: Path) -> None:
    PIL_Image.fromarray(pixels(200, 200)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    with pytest.raises(InvalidImage, match="cannot be read"):
        encode_image(PIL_Image.open(io.BytesIO(data[: len(data) // 2])))


def test_images_of_datasets_that_are_not_decoded() -> None:
    assert encode_image({"bytes": b"ab", "path": None}) == encode_image(b"ab")
    assert encode_image({"bytes": None, "path": "/a.png"}) == {"path": "/a.png"}


@pytest.mark.parametrize("image", [7, None, {"bytes": None, "path": None}, b"", [1]])
def test_what_is_no_image_is_refused(image: Any) -> None:
    with pytest.raises(InvalidImage):
        encode_image(image)


def test_the_image_that_is_wrong_is_named() -> None:
    with pytest.raises(InvalidImage, match=r"images\[1\]: an image is a int"):
        encode_images(["a.png", 7])


def test_same_image_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    image = PIL_Image.fromarray(pixels())
    encoded = encode_images([image, "a.png", image])
    assert encoded[0] is encoded[2]


def test_tensors_of_torch_are_arrays() -> None:
    torch = pytest.importorskip("torch")
    array = pixels()
    assert encode_image(torch.from_numpy(array)) == encode_image(array)
