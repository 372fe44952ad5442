"""`python3 -m firstkey`: the command without an installation."""

import sys

try:
    from firstkey.cli.main import main

    sys.exit(main())
except KeyboardInterrupt:  # while it was still loading
    sys.exit(130)
