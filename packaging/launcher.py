#!/usr/bin/python3 -BIS
"""The command `firstkey`, as it is installed: the system's Python, the private directory, nothing else.

-I: neither the environment nor the current directory says where code comes from, also by hand as root.
-S: no start-up files (.pth, sitecustomize) of other packages are run, nor paid for at every boot; and what
    pip put into /usr/local cannot stand before the distribution's own requests.
-B: a run never writes to /usr. What compiles the code is the package, when it or Python is installed.
"""

import os
import sys

usr = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
version = "python{}.{}".format(*sys.version_info)
sys.path.insert(0, f"{usr}/lib/firstkey")
sys.path += [
    "/usr/lib/python3/dist-packages",  # Debian and Ubuntu
    f"/usr/lib64/{version}/site-packages",  # Fedora, RHEL and Amazon Linux: what is compiled, systemd
    f"/usr/lib/{version}/site-packages",  # ... and what is not, requests
]

try:
    from firstkey.cli.main import main

    sys.exit(main())
except KeyboardInterrupt:  # while it was still loading
    sys.exit(130)
