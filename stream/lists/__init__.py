"""Steps 3 to 5: lists, what they are made from and for whom; in the worker that took the events in, or another."""
