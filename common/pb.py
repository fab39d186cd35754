"""The generated messages, and the one place that knows where they lie.

`proto` is also the name of proto-plus's package, which wins over a folder without `__init__.py` when both are
importable. So our folder is put on that package's path, whoever owns the package (docs/adr/0002).
"""

from pathlib import Path

import proto

_FOLDER = str(Path(__file__).resolve().parent.parent / "proto")
if _FOLDER not in proto.__path__:
    proto.__path__.append(_FOLDER)

from google.protobuf.message import DecodeError as DecodeError  # noqa: E402

from proto.federation_pb2 import *  # noqa: E402, F403 - the messages are this module's whole content
