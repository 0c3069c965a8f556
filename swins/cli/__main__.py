"""`python -m swins.cli`."""

import sys

from swins.cli import main

sys.exit(main())
