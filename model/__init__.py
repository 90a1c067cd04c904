"""Interests: histories in, vectors and ranked items out. Numpy and torch only: nothing here has heard of
Kafka or of an index.
"""
