"""Where data files lie: data sets by name, and the files that a run file names."""

import os
from pathlib import Path

FOLDER_VARIABLE = "EDGEFED_DATA"


def data_folder() -> Path:
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "edgefed")


def found(name: str, beside: Path | None = None) -> Path:
    """The file that a run file names: as its path says, from `beside` (else the working folder), or in the data folder.

    A file that is in neither place gives the first of them, for the error that opening it raises.
    """
    given = (beside or Path()) / Path(name).expanduser()
    in_data = data_folder() / name
    return in_data if not given.exists() and in_data.exists() else given
