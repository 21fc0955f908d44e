"""Which elements of a source go into exported DICOM objects; every other one stays behind.

What is listed describes the image, not the person: acquisition, geometry, and for PET what SUV needs.
"""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """Words of a block of text, so that a long list stays readable."""
    return tuple(text.split())


ALWAYS = words(
    """ImageType StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID StudyDate StudyTime SeriesDate SeriesTime
    AcquisitionDate AcquisitionTime SeriesNumber AcquisitionNumber InstanceNumber Manufacturer ManufacturerModelName
    SoftwareVersions BodyPartExamined Laterality ImageLaterality PatientPosition PatientOrientation SliceThickness
    SpacingBetweenSlices ImagePositionPatient ImageOrientationPatient PixelSpacing ImagerPixelSpacing SliceLocation
    PositionReferenceIndicator LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod
    BurnedInAnnotation WindowCenter WindowWidth ContrastBolusRoute TemporalPositionIdentifier NumberOfTemporalPositions
    TriggerTime"""
)
KEPT_CHARACTERISTICS = words("PatientSex PatientAge PatientSize PatientWeight")
IDENTITY = words(
    """PatientName PatientID IssuerOfPatientID PatientBirthDate ReferringPhysicianName StudyID AccessionNumber
    StudyDescription SeriesDescription ProtocolName InstitutionName StationName TimezoneOffsetFromUTC"""
)
BY_MODALITY = {
    "CT": words(
        """KVP DataCollectionDiameter ReconstructionDiameter DistanceSourceToDetector DistanceSourceToPatient
        GantryDetectorTilt TableHeight RotationDirection ExposureTime XRayTubeCurrent Exposure ExposureInuAs FilterType
        GeneratorPower FocalSpots ConvolutionKernel ScanOptions RevolutionTime SingleCollimationWidth
        TotalCollimationWidth TableSpeed TableFeedPerRotation SpiralPitchFactor CTDIvol ExposureModulationType
        DataCollectionCenterPatient ReconstructionTargetCenterPatient"""
    ),
    "MR": words(
        """ScanningSequence SequenceVariant ScanOptions MRAcquisitionType AngioFlag RepetitionTime EchoTime
        InversionTime NumberOfAverages ImagingFrequency ImagedNucleus EchoNumbers MagneticFieldStrength
        NumberOfPhaseEncodingSteps EchoTrainLength PercentSampling PercentPhaseFieldOfView PixelBandwidth
        NominalInterval HeartRate CardiacNumberOfImages TriggerWindow ReconstructionDiameter AcquisitionMatrix
        InPlanePhaseEncodingDirection FlipAngle SAR VariableFlipAngleFlag dBdt TemporalResolution"""
    ),
    "PT": words(
        """SeriesType Units CountsSource CorrectedImage DecayCorrection CollimatorType AttenuationCorrectionMethod
        ReconstructionMethod RandomsCorrectionMethod ScatterCorrectionMethod AxialAcceptance AxialMash TransverseMash
        DetectorElementSize CoincidenceWindowWidth NumberOfSlices NumberOfTimeSlices NumberOfRRIntervals
        ActualFrameDuration ImageIndex FrameReferenceTime DecayFactor DoseCalibrationFactor ScatterFractionFactor
        DeadTimeFactor FieldOfViewShape FieldOfViewDimensions GantryDetectorTilt ReconstructionDiameter
        EnergyWindowRangeSequence RadiopharmaceuticalInformationSequence PatientOrientationCodeSequence
        PatientGantryRelationshipCodeSequence SUVType"""
    ),
}
INSIDE = words(
    """EnergyWindowLowerLimit EnergyWindowUpperLimit Radiopharmaceutical RadiopharmaceuticalRoute
    RadiopharmaceuticalVolume RadiopharmaceuticalStartTime RadiopharmaceuticalStopTime
    RadiopharmaceuticalStartDateTime RadiopharmaceuticalStopDateTime RadionuclideTotalDose RadionuclideHalfLife
    RadionuclidePositronFraction RadiopharmaceuticalSpecificActivity RadionuclideCodeSequence
    RadiopharmaceuticalCodeSequence AdministrationRouteCodeSequence PatientOrientationModifierCodeSequence"""
)
CODES = words("CodeValue LongCodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning")
DATES = words("StudyDate SeriesDate AcquisitionDate PatientBirthDate")
DATE_TIMES = words("RadiopharmaceuticalStartDateTime RadiopharmaceuticalStopDateTime")
UIDS = words("StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID")
FRAME_NAMES = {  # element of a functional group -> the classic element that says the same
    "EffectiveEchoTime": "EchoTime",
    "TransmitterFrequency": "ImagingFrequency",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "FrameLaterality": "ImageLaterality",
    "FrameType": "ImageType",
    "ExposureTimeInms": "ExposureTime",
    "XRayTubeCurrentInmA": "XRayTubeCurrent",
    "ExposureInmAs": "Exposure",
    "TemporalPositionIndex": "TemporalPositionIdentifier",
    "GantryDetectorTilt": "GantryDetectorTilt",
}
"""``InPlanePhaseEncodingDirection`` says COLUMN where classic objects say COL; ``derived`` takes care of it."""
