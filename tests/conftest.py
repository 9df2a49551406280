"""Settings for the whole suite: one thread a process (the suite itself runs in parallel) and steady hypothesis."""

from __future__ import annotations

import os

# before torch is imported anywhere: several spinning processes on two cores would be many times slower
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis

hypothesis.settings.register_profile("suite", deadline=None, print_blob=True)
hypothesis.settings.load_profile("suite")
