"""Enhanced multi-frame DICOM: one header, many slices, each with its functional groups."""

from __future__ import annotations

from pydicom.dataset import Dataset

from medapp.errors import UnreadableFileError
from medapp.scan.dicom_file import DicomFile
from medapp.scan.frames import Frame, b_value, family, positive_pair, single_frames, vector
from medapp.scan.header import Header
from medapp.scan.intensity import Rescale, read_rescale, read_windows


def frames_of(file: DicomFile) -> list[Frame]:
    """Every slice of a file, from functional groups where it has them.

    Raises:
        UnreadableFileError: The functional groups are damaged, or do not match the number of frames.

    Reference:
        DICOM PS3.3 C.7.6.16.
    """
    per_frame = file.header.items("PerFrameFunctionalGroupsSequence")
    shared = file.header.items("SharedFunctionalGroupsSequence")
    if not per_frame and not shared:
        return single_frames(file)
    if per_frame and len(per_frame) != file.frames:
        raise UnreadableFileError(
            f"{file.name}: {len(per_frame)} functional groups describe {file.frames} frames.",
            "Export the image again from its source.",
        )
    common = shared[0] if shared else None
    return [_frame(file, index, per_frame[index] if per_frame else None, common) for index in range(file.frames)]


def _frame(file: DicomFile, index: int, own: Header | None, shared: Header | None) -> Frame:
    empty = Header(Dataset(), file.name)

    def group(keyword: str) -> Header:
        """The item of a functional group: this frame's, else the shared one, else an empty one."""
        for source in (own, shared):
            if source is not None:
                items = source.items(keyword)
                if items:
                    return items[0]
        return empty

    header = file.header
    measures, content = group("PixelMeasuresSequence"), group("FrameContentSequence")
    values = group("PixelValueTransformationSequence")
    rescale = Rescale() if file.is_colour else read_rescale(values)
    if not rescale.is_given and not file.is_colour:
        rescale = read_rescale(header)
    windows, notes = read_windows(group("FrameVOILUTSequence"))
    if not windows:
        windows, more = read_windows(header)
        notes = notes or more
    echo, diffusion = group("MREchoSequence"), group("MRDiffusionSequence")
    gradient = diffusion.items("DiffusionGradientDirectionSequence")
    cardiac = group("CardiacSynchronizationSequence")
    frame_type = (
        group("MRImageFrameTypeSequence").texts("FrameType")
        or group("CTImageFrameTypeSequence").texts("FrameType")
        or group("PETFrameTypeSequence").texts("FrameType")
        or header.texts("ImageType")
    )
    split = (
        file.rows,
        file.columns,
        file.samples,
        family(file),
        frame_type[:3],
        header.text("FrameOfReferenceUID"),
        echo.number("EffectiveEchoTime", False),
        "",
        b_value(diffusion),
        gradient[0].numbers("DiffusionGradientOrientation", False) if gradient else (),
        content.integer("TemporalPositionIndex", False),
        cardiac.number("NominalCardiacTriggerDelayTime", False),
        header.text("Units"),
        content.text("StackID"),
    )
    in_stack = content.integer("InStackPositionNumber", False)
    return Frame(
        file=file,
        index=index,
        position=vector(group("PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=vector(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        spacing=positive_pair(measures.numbers("PixelSpacing")),
        thickness=measures.number("SliceThickness", False),
        between=measures.number("SpacingBetweenSlices", False),
        rescale=rescale,
        windows=windows,
        split=split,
        order=(0.0 if in_stack is None else float(in_stack), index),
        acquisition=(
            content.text("FrameAcquisitionNumber"),
            content.text("FrameAcquisitionDateTime") or content.text("FrameReferenceDateTime"),
        ),
        notes=list(notes),
    )
