"""Training by several processes, started by torchrun; one process needs nothing of this and joins no group.

group.py    the processes of one run and what they say to each other
meeting.py  how those of one start find each other
split.py    which rows of a step are whose
launch.py   `cllm train --processes N`: a call of torchrun
"""
