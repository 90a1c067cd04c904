"""A pipeline as a process: checks before it starts, signals, health, and what can be seen of it from outside."""
