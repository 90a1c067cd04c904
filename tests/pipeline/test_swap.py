"""A catalogue that changes under lists that are made, on a real Kafka: what is withdrawn is in none that is written."""

from __future__ import annotations

from tests.pipeline.harness import Deployment, check_answered, check_state, some_events, until
from tests.pipeline.test_errors import check_told

WITHDRAWN = [f"i{n}" for n in range(12)]
"""Of twenty items; what is left is less than a list, so a list made before has one of these."""
ON_LOOP = (
    "import asyncio\n"
    "from stream.lists.recommend import Recommender\n"
    "real = Recommender._emit\n"
    "async def emit(self, interests, lists):\n"
    "    while lists.version == self._serving.current.catalog.version and not hasattr(self, 'swapped'):\n"
    "        await asyncio.sleep(0.01)\n"
    "    self.swapped = True\n"
    "    await real(self, interests, lists)\n"
    "Recommender._emit = emit\n"
)
"""Lists are made, the next ones queue up behind them, and nothing is written before the swap."""
ON_A_THREAD = (
    "import time\n"
    "from stream.lists.recommend import Recommender\n"
    "run, compute = Recommender.run, Recommender._compute\n"
    "def on_a_thread(self):\n"
    "    self._on_loop = False\n"
    "    return run(self)\n"
    "def overtaken(self, *args):\n"
    "    lists = compute(self, *args)\n"
    "    while lists.version == self._serving.current.catalog.version and not hasattr(self, 'swapped'):\n"
    "        time.sleep(0.01)\n"
    "    self.swapped = True\n"
    "    return lists\n"
    "Recommender.run, Recommender._compute = on_a_thread, overtaken\n"
)
"""As on a GPU; the swap comes while lists are made."""


def test_lists_that_wait_to_be_written_while_a_catalogue_is_swapped_are_made_again(deployment: Deployment) -> None:
    check_overtaken(deployment, ON_LOOP)


def test_a_catalogue_swapped_while_lists_are_made_has_them_made_again(deployment: Deployment) -> None:
    check_overtaken(deployment, ON_A_THREAD)


def check_overtaken(deployment: Deployment, prelude: str) -> None:
    events = some_events(60, users=20)
    worker = deployment.worker(prelude=prelude, EDDYLINE_RECOMMEND__MAX_BATCH="4").ready()
    deployment.send(events)
    until(lambda: worker.status()["events"] == len(events), 30, "all events are applied")
    assert deployment.lists() == []
    check_told(deployment.cli("catalog", "withdraw", *WITHDRAWN), 0, "12 items")
    deployment.settled()
    lists = deployment.lists()
    assert lists and not {item.item for one in lists for item in one.items} & set(WITHDRAWN)
    assert len({one.catalog_version for one in lists}) == 1
    check_answered(deployment)
    check_state(deployment, events)
    assert worker.stop() == 0 and "Traceback" not in worker.log.read_text()
