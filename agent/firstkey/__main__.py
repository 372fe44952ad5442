"""`python3 -m firstkey`: the command without an installation."""

import sys

from firstkey.cli.main import main

sys.exit(main())
