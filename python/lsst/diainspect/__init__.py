"""Inspection of difference images with butler-native datasets."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("lsst-diainspect")
except PackageNotFoundError:
    # Set up from source under EUPS, where no distribution metadata exists.
    __version__ = "0.1.0"
