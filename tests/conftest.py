"""Settings for the whole suite: one thread a process (the suite itself runs in parallel) and steady hypothesis."""

from __future__ import annotations

import os

# before torch is imported anywhere: several spinning processes on two cores would be many times slower
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# before triton is imported anywhere: its kernels run in its interpreter, on the CPU (tests/engine/elsewhere.py)
if os.environ.get("CLLM_TEST_DEVICE", "cpu") == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")

import hypothesis

hypothesis.settings.register_profile("suite", deadline=None, print_blob=True)
hypothesis.settings.load_profile("suite")
