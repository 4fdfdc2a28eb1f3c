"""OME-TIFFs of which one tells of several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_tiled_unet.io import (
    read_image,
)


def ome_of_files(own: str, pixels: list[str]) -> str:
    """Return the OME-XML that every file of a set carries."""
    images = "".join(
        f'<Image ID="Image:{i}" Name="p{i}"><Pixels ID="Pixels:{i}" DimensionOrder="XYZCT" Type="uint8" SizeX="32" '
        f'SizeY="32" SizeC="1" SizeT="1" {inside}</Pixels></Image>'
        for i, inside in enumerate(pixels)
    )
    name = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{name}" UUID="urn:uuid:{own}">{images}</OME>'


def plane_in(file: str, uuid: str, z: int = 0) -> str:
    return f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1"><UUID FileName="{file}">urn:uuid:{uuid}</UUID></TiffData>'


UUIDS = [f"{n}1111111-1111-1111-1111-111111111111" for n in range(3)]


CHANNEL = '<Channel ID="Channel:0" SamplesPerPixel="1"/>'


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("lazy_bytes", [0, 2**20])
def test_of_a_set_of_ome_tiffs_each_file_is_its_own_image(
    tmp_path: Path, compression: str | None, lazy_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_tiled_unet.io.tiff.LAZY_BYTES", lazy_bytes)
    files = [f"pos{n}.ome.tif" for n in range(3)]
    pixels = [
        f'SizeZ="1" PhysicalSizeX="{n + 1}" PhysicalSizeY="{n + 1}">{CHANNEL}{plane_in(file, UUIDS[n])}'
        for n, file in enumerate(files)
    ]
    for n, file in enumerate(files):
        plane = np.full((32, 32), 10 + n, np.uint8)
        xml = ome_of_files(UUIDS[n], pixels)
        tifffile.imwrite(tmp_path / file, plane, description=xml, metadata=None, compression=compression)
    for n, file in enumerate(files):
        image = read_image(tmp_path / file)
        assert np.unique(image.data[:]) == 10 + n
        assert image.spacing == pytest.approx((n + 1, n + 1))
        assert image.notes == (f"{file} tells of 2 more images, which lie in other files and are left out",)


def test_a_stack_over_several_ome_tiffs_is_said(tmp_path: Path) -> None:
    files = [f"z{n}.ome.tif" for n in range(3)]
    pixels = 'SizeZ="3">' + CHANNEL + "".join(plane_in(file, UUIDS[n], n) for n, file in enumerate(files))
    for n, file in enumerate(files):
        plane, xml = np.full((32, 32), 10 + n, np.uint8), ome_of_files(UUIDS[n], [pixels])
        tifffile.imwrite(tmp_path / file, plane, description=xml, metadata=None, compression="zlib")
    image = read_image(tmp_path / "z1.ome.tif")
    np.testing.assert_array_equal(np.asarray(image.data).max((1, 2)), [10, 11, 12])
    assert image.notes == ("z1.ome.tif is one of 3 files that together hold one image; all of it is read",)
