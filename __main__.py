"""`python -m hicom_edge`: the command line."""

import sys

from hicom_edge.cli import main

sys.exit(main())
