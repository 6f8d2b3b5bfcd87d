"""The error tree.

    AsdError                    anything that has one clear line for a person
    ├── UsageError              a mistake in the command line or the configuration (exit 2)
    │   └── ConfigError         names the file and the key
    ├── SourceError             a sound source cannot be opened or read
    │   └── EndOfSource         a finite source has been read to its end (not a failure)
    ├── BundleError             an encoder bundle is missing, damaged or does not fit
    ├── BaselineError           a baseline is missing, damaged, tampered with or does not fit
    ├── CalibrationError        the recordings do not support a calibration
    ├── StoreError              the state directory or its database cannot be used
    ├── PublishError            the broker refuses us for a reason a person must mend
    └── ArtefactError           a signed artefact is refused: signature, addressee, size or content

Every message is one line: what is wrong, where (file, key), and what to do.
"""


class AsdError(Exception):
    """Base class; `exit_code` is what a command ends with."""

    exit_code = 1


class UsageError(AsdError):
    exit_code = 2


class ConfigError(UsageError):
    pass


class SourceError(AsdError):
    pass


class EndOfSource(SourceError):  # noqa: N818 - an end, not an error
    pass


class BundleError(AsdError):
    pass


class BaselineError(AsdError):
    pass


class CalibrationError(AsdError):
    pass


class StoreError(AsdError):
    pass


class PublishError(AsdError):
    pass


class ArtefactError(AsdError):
    pass
