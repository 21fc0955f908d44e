"""Every error that medapp can tell a person about.

::

    MedappError                     the world is in the way and a person can act
    ├── UnreadableFileError         a file is damaged, unsupported or unsafe
    │   ├── HoldsNoImageError       a sound file without an image (SR, RT plan, ...)
    │   ├── ChangedWhileReadingError  the file changed or vanished under us
    │   └── DepthScaleError         nobody stated what the numbers of a depth file mean, or two did
    ├── MaskMismatchError           a mask does not fit the series it was meant for
    ├── ProjectError                a project cannot be used as asked
    │   ├── ProjectLockedError      another window or computer has it open
    │   ├── ProjectNewerError       written by a newer medapp
    │   ├── ProjectDamagedError     the database or a voxel file is damaged
    │   └── SaveFailedError         disk full, quota, no permission
    ├── WeightsError                a weights file or its card cannot be used
    ├── UnsuitableModelError        this model does not fit this scan
    ├── ComputeError                out of memory, non-finite output, a device that vanished
    ├── ExportError                 an export cannot be written or failed its own check
    ├── TrainingError               a data set or run that cannot be trained
    │   └── RunUnusableError        this run can never go on; a new one can
    └── UsageError                  a command that was asked for wrongly
    Cancelled                       the user stopped it; not an error
"""


class MedappError(Exception):
    """The world is in the way and a person can act.

    Attributes:
        message: What happened and what is safe; one line, no patient name or id.
        hint: What to do; one line.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = " ".join(message.split())
        self.hint = " ".join(hint.split())


class UnreadableFileError(MedappError):
    """A file is damaged, unsupported or unsafe to open."""


class HoldsNoImageError(UnreadableFileError):
    """The file is sound but holds no image (structured report, RT plan, presentation state...)."""


class ChangedWhileReadingError(UnreadableFileError):
    """The file changed or vanished while it was read."""


class DepthScaleError(UnreadableFileError):
    """Nobody stated what the numbers of a depth file mean, or two statements differ."""


class MaskMismatchError(MedappError):
    """A mask or label map does not lie on the grid of the series."""


class ProjectError(MedappError):
    """A project cannot be used as asked."""


class ProjectLockedError(ProjectError):
    """Another window or another computer has the project open for writing."""


class ProjectNewerError(ProjectError):
    """The project was written by a newer medapp."""


class ProjectDamagedError(ProjectError):
    """The database or a voxel file is damaged."""


class SaveFailedError(ProjectError):
    """Writing failed: disk full, quota, no permission, read-only folder."""


class WeightsError(MedappError):
    """A weights file or its card cannot be used."""


class UnsuitableModelError(MedappError):
    """The model expects another modality, unit or size."""


class ComputeError(MedappError):
    """The computation itself failed: out of memory, non-finite output, a device that vanished."""


class ExportError(MedappError):
    """An export cannot be written, or failed its own check after writing."""


class TrainingError(MedappError):
    """A data set or run folder that cannot be trained."""


class RunUnusableError(TrainingError):
    """This run can never go on: what it began with is damaged or not the same any more."""


class UsageError(MedappError):
    """A command was asked for in a way that cannot be carried out."""


class Cancelled(Exception):  # noqa: N818 - cancelling is not an error
    """The user stopped the work; nothing was changed."""
