"""`python -m stedfm_hf.cli`: the command line where no script is installed."""

import sys

from stedfm_hf.cli import main

sys.exit(main())
