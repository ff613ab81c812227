"""Exit with the reason where the Makefile cannot use the Python that runs this.

Old Pythons run it too: no syntax here is newer than they are.
"""

import sys
import sysconfig

#: The oldest and the newest that `make pythons` tries.
OLDEST, NEWEST = (3, 11), (3, 15)

version = sys.version_info[:2]
name = "Python " + ".".join(map(str, version))
if version < OLDEST:
    sys.exit(name + " is too old.")
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit("Free-threaded builds of Python are not supported: gRPC has no wheels for them.")
if version > NEWEST:
    print(name + " is newer than any that was tried: using it.")
