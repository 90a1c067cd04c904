"""The live page: a visitor clicks, and watches the list come back through Kafka.

``server`` speaks HTTP, ``link`` speaks Kafka, ``visitors`` holds what each browser is shown, ``shelf`` is the
catalogue as the page searches it; ``static/`` is the page itself. None of it is part of the pipeline: the
page is one more Kafka client, which publishes events and subscribes to recommendations as any other program
would.
"""

from stream.web.server import Page

__all__ = ["Page"]
