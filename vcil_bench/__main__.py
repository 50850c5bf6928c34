"""Makes ``python -m vcil_bench`` the same as the command ``vcil-bench``."""

import sys

from .cli import main

sys.exit(main())
