"""`python -m slurm_energy` is the `senergy` command."""

import sys

from slurm_energy.cli import main

sys.exit(main())
