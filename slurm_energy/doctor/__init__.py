"""What `senergy doctor` looks at. `machine` looks; `compute`, `admin` and `login` judge what was seen and say how to put it
right; `roles` does both.
"""
