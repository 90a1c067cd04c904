"""The lists of a micro-batch as tensor operations, for engines whose items are not in a CPU's memory.

Not another ranking: what numpy does for a CPU (`rules.py`, `online.py`, `mix.py`, `diversity.py`, `arrange.py`),
without a step for each user and without leaving the device. A test holds both to the same lists.
"""
