"""What server and agents share. Imports numpy, protobuf, psutil and the standard library, nothing else.

The exceptions are `nets` and `objectives`, which hold torch and are loaded only by those who train or initialise
with it. Everything here runs on the smallest device, so a dependency added here is installed on all of them.
"""

__version__ = "0.1.0"  # here, because asking the package metadata costs an idle agent a megabyte
