"""Enhanced multi-frame objects: each frame has its place and its rescale in functional groups."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medapp.progress import Progress
from medapp.scan.lazy import FoundScan
from medapp.scan.reading import read_all, read_path, read_scan
from medapp.scan.scan import Scan
from tests.builders import make_dataset, make_scan, save_dataset

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"


def group(**elements) -> Sequence:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return Sequence([item])


def enhanced(tmp_path, scan: Scan, change=None, order=None):
    """One multi-frame file of a scan, frames in any order."""
    order = list(range(scan.shape[0])) if order is None else order
    single = [make_dataset(scan, z) for z in order]
    ds = make_dataset(scan, 0, SOPClassUID=ENHANCED_MR, NumberOfFrames=len(order))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del ds[keyword]
    ds.PixelData = b"".join(each.PixelData for each in single)
    shared, frames = Dataset(), []
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=single[0].ImageOrientationPatient)
    shared.PixelMeasuresSequence = group(PixelSpacing=single[0].PixelSpacing, SliceThickness=2)
    for index, each in enumerate(single):
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=each.ImagePositionPatient)
        frame.PixelValueTransformationSequence = group(RescaleSlope=2, RescaleIntercept=-10, RescaleType="US")
        frame.FrameVOILUTSequence = group(WindowCenter=300, WindowWidth=600)
        frame.FrameContentSequence = group(StackID="1", InStackPositionNumber=index + 1)
        if change is not None:
            change(frame, index)
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return save_dataset(tmp_path / "enhanced.dcm", ds)


def test_frames_are_sorted_by_position_and_rescaled_by_their_groups(tmp_path):
    scan = make_scan(modality="MR")
    found = read_scan(enhanced(tmp_path, scan, order=[2, 0, 3, 1]))

    assert found.kind == "scan"
    assert found.geometry.is_close(scan.geometry)
    assert np.array_equal(found.values(), scan.stored * 2.0 - 10)
    assert [number for _, number in found.source.frames] == [2, 4, 1, 3]
    assert found.windows[0].width == 600


def test_frames_with_their_own_slopes_become_float(tmp_path):
    scan = make_scan(modality="MR")

    def own(frame, index):
        frame.PixelValueTransformationSequence = group(RescaleSlope=1 + index, RescaleIntercept=0, RescaleType="US")

    found = read_scan(enhanced(tmp_path, scan, own))
    assert found.stored.dtype == np.float32
    assert np.allclose(found.values(), scan.stored * (1.0 + np.arange(4))[:, None, None])


@pytest.mark.parametrize(
    "change",
    [
        lambda frame, index: setattr(frame.FrameContentSequence[0], "StackID", str(index // 3)),
        lambda frame, index: setattr(frame.FrameContentSequence[0], "TemporalPositionIndex", 1 + index // 3),
        lambda frame, index: setattr(frame, "MREchoSequence", group(EffectiveEchoTime=10.0 + 5 * (index // 3))),
        lambda frame, index: setattr(frame, "MRDiffusionSequence", group(DiffusionBValue=500.0 * (index // 3))),
    ],
)
def test_stacks_times_echoes_and_b_values_are_parts(tmp_path, change):
    path = enhanced(tmp_path, make_scan((6, 12, 16), modality="MR"), change)

    assert [scan.shape[0] for scan in read_all(path)] == [3, 3]


def test_frames_without_position_are_a_stack(tmp_path):
    def forget(frame, index):
        del frame.PlanePositionSequence

    found = read_scan(enhanced(tmp_path, make_scan(modality="MR"), forget))
    assert (found.kind, found.geometry) == ("stack", None)
    assert found.notes


def test_functional_groups_that_do_not_match_the_frames_are_refused(tmp_path):
    path = enhanced(tmp_path, make_scan(modality="MR"))
    import pydicom

    ds = pydicom.dcmread(path)
    ds.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[:3]
    ds.save_as(path)

    (refused,) = read_path(path, Progress())
    assert not isinstance(refused, FoundScan)
    assert "3 functional groups describe 4 frames" in refused.message
