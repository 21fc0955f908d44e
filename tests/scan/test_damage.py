"""Whatever happens to a file's bytes: a scan, or one line, and never anything else."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image
from pydicom.filereader import read_partial

from medapp.errors import MedappError
from medapp.progress import Progress
from medapp.scan.dicom_file import TAGS
from medapp.scan.intensity import value_range
from medapp.scan.lazy import FoundScan, check_memory, free_memory
from medapp.scan.quick_header import read_quickly
from medapp.scan.reading import read_path
from tests.builders import compress, make_dataset, make_scan, save_dataset, shared_data, write_dicom_series


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """Cut, overwritten, shortened or lengthened at random."""
    content = bytearray(whole)
    kind = rng.randrange(4)
    at = rng.randrange(len(content) - 64)
    if kind == 0:
        return bytes(content[:at])
    if kind == 1:
        for _ in range(rng.randrange(1, 12)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif kind == 2:
        del content[at : at + rng.randrange(1, 60)]
    else:
        content[at:at] = rng.randbytes(rng.randrange(1, 60))
    return bytes(content)


def sources(folder) -> dict[str, bytes]:
    import nibabel as nib

    scan = make_scan((3, 40, 48))
    save_dataset(folder / "plain.dcm", make_dataset(scan, 0))
    for name, syntax in (("rle", "1.2.840.10008.1.2.5"), ("j2k", "1.2.840.10008.1.2.4.90")):
        save_dataset(folder / f"{name}.dcm", compress(make_dataset(scan, 0), syntax), syntax)
    save_dataset(folder / "deflated.dcm", make_dataset(scan, 0), "1.2.840.10008.1.2.1.99")
    nib.save(nib.Nifti1Image(scan.stored, np.eye(4)), folder / "a.nii")
    nib.save(nib.Nifti1Image(scan.stored, np.eye(4)), folder / "a.nii.gz")
    for ending in ("png", "tif", "bmp", "jpg"):
        Image.fromarray(scan.stored[0].astype(np.uint8)).save(folder / f"a.{ending}")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_damaged_bytes_give_a_scan_or_one_line(tmp_path):
    (tmp_path / "whole").mkdir()
    rng = random.Random(20261122)
    path = tmp_path / "damaged"
    outcomes = {"read": 0, "refused": 0}
    for whole in sources(tmp_path / "whole").values():
        for _ in range(40):
            path.write_bytes(damaged(whole, rng))
            for finding in read_path(path, Progress()):
                if not isinstance(finding, FoundScan):
                    assert finding.message
                    outcomes["refused"] += 1
                    continue
                try:
                    value_range(finding.scan.decode())
                    outcomes["read"] += 1
                except MedappError as error:
                    assert error.message  # noqa: PT017 - either outcome is right
                    outcomes["refused"] += 1

    assert min(outcomes.values()) > 50


def test_the_quick_header_is_what_pydicom_reads(tmp_path):
    from medapp.scan.dicom import _at_pixels, _tag_list, _tag_set

    folder = shared_data() / "dicom"
    quick = 0
    for path in sorted(folder.rglob("*.dcm")):
        found = read_quickly(path.read_bytes()[: 1 << 16], _tag_set(tuple(TAGS)))
        if found is None:
            continue
        quick += 1
        dataset, syntax, end = found
        with path.open("rb") as file:
            other = read_partial(file, _at_pixels, force=True, specific_tags=_tag_list(tuple(TAGS)))
            assert file.tell() == end
        assert str(other.file_meta.TransferSyntaxUID) == syntax
        assert dataset.original_encoding == other.original_encoding
        assert dataset.keys() == other.keys()
        assert all(dataset[tag] == other[tag] for tag in dataset.keys())  # noqa: SIM118
    assert quick > 50


def test_a_header_that_is_not_plain_is_left_to_pydicom(tmp_path):
    from medapp.scan.dicom import _tag_set

    path = save_dataset(tmp_path / "a.dcm", make_dataset(make_scan(), 0))
    whole, wanted = path.read_bytes(), _tag_set(tuple(TAGS))
    assert read_quickly(whole, wanted) is not None
    assert read_quickly(whole[:400], wanted) is None  # longer than what was read
    assert read_quickly(whole[132:], wanted) is None
    assert read_quickly(whole.replace(b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00ZZ"), wanted) is None


def test_more_than_the_machine_can_hold_is_refused_before_it_is_allocated():
    with pytest.raises(MedappError, match="more than this machine can hold"):
        check_memory(free_memory(), "a.nii")


def test_each_foreign_file_is_announced_before_it_is_parsed(tmp_path):
    scan = make_scan((3, 40, 48))
    for z in range(3):
        ds = compress(make_dataset(scan, z), "1.2.840.10008.1.2.5")
        save_dataset(tmp_path / f"{z}.dcm", ds, "1.2.840.10008.1.2.5")
    events = []
    progress = Progress(
        lambda event: events.append((event.file, event.file_limit_s)) if event.file is not None else None
    )
    (finding,) = read_path(tmp_path, progress)
    assert [name for name, _ in events] == [*(str(tmp_path / f"{z}.dcm") for z in range(3)), ""]

    events.clear()
    finding.scan.decode(first=1)
    assert [name for name, _ in events] == [*(str(tmp_path / f"{z}.dcm") for z in (1, 0, 2)), ""]
    assert all(0 < limit <= 10 for name, limit in events if name)


def test_stopping_while_decoding_leaves_nothing_open(tmp_path):
    from medapp.errors import Cancelled

    write_dicom_series(tmp_path, make_scan())
    (finding,) = read_path(tmp_path, Progress())
    told = []
    with pytest.raises(Cancelled):
        finding.scan.decode(on_slice=lambda z, _: told.append(z), progress=Progress(is_stopped=lambda: len(told) > 1))

    assert len(told) == 2
