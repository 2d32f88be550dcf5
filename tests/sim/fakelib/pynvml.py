"""`import pynvml` for a whole process with simulated GPUs: those under $SENERGY_SIM_NVML (a SimNode's `root`/nvml)."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from sim.nvml import FakeNvml

_fake = FakeNvml(os.environ["SENERGY_SIM_NVML"])
globals().update({name: getattr(_fake, name) for name in dir(_fake) if name.startswith(("nvml", "NVML"))})
