"""What every test runs under: one thread each, so that workers side by side do not fight over the cores."""

import os

# before torch is imported, and for the processes that tests start
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
