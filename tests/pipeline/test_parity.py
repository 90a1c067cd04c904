"""The same model makes the same lists offline and in a running worker: what is evaluated is what is served.

One partition, and each event sent when the list for the one before it was read, so that none is conflated; the worker
lags nowhere (`recommend.exact`). Offline, lists are what an evaluation ranks (`model.evaluation.methods.served`) from
the events up to the same one: all items at once, with no index and no candidates.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from model import checkpoint
from model.catalog import Catalog, Item
from model.config import ModelConfig, Seen, TrainConfig
from model.dataset import Events
from model.encoder import TextEncoder
from model.engine import Engine
from model.evaluation.exams import Asked, World
from model.evaluation.methods.served import Served
from model.evaluation.past import unseen
from model.exposure import ExposureConfig
from model.feedback import FeedbackConfig
from model.habits import Habits
from model.history import ACTION_CODE, ACTION_NAME, HistoryLog
from model.leaning import leanings_of
from model.mix import Mix
from model.people import People, Person
from model.recommender import Recommender
from model.replay import timeline
from model.train import train
from stream import messages
from stream.kafka import topics
from stream.messages import Recommendation
from stream.publishing import JSON_HEADERS, encode_event, publish_people
from stream.settings import load
from tests.pipeline.harness import Deployment, run, until

EVENTS, USERS, N = 2000, 40, 10
ITEMS = [
    Item(f"i{n}", f"{mood} {thing} {place}", categories=[mood, thing])
    for n, (mood, thing, place) in enumerate(
        (m, t, p)
        for m in ("quiet", "stormy", "golden", "hidden", "old", "new")
        for t in ("river", "harbour", "bridge", "mill", "weir")
        for p in ("in town", "by the sea", "at night", "of the north", "under snow", "in spring", "at war", "of glass")
    )
]
STRANGER = "not in the catalogue"
CLOSE = 1e-5
"""Two scores as near as this, relative to each other, may change places: one user at a time adds up otherwise than
many do."""
ROUNDED = 6e-6
"""Scores are written with five decimals."""


def events() -> Events:
    """Users who go on from item to item, now and then to any, over five weeks; in bursts of one second, with exact
    repeats, events that come late, items that nobody knows, and more of some users than a history holds.
    """
    rng = np.random.default_rng(5)
    user = np.minimum(rng.geometric(0.09, EVENTS) - 1, USERS - 1)
    burst = np.where(rng.random(EVENTS) < 0.8, 0, np.arange(EVENTS))
    burst = np.maximum.accumulate(burst)  # the first event of the burst that each is in
    user = user[burst]
    at, item = np.zeros(USERS, int), np.zeros(EVENTS, int)
    for i, u in enumerate(user):
        at[u] = (at[u] + rng.integers(1, 3) if rng.random() < 0.7 else rng.integers(len(ITEMS))) % len(ITEMS)
        item[i] = at[u]
    ts = 1_700_000_000_000 + np.sort(rng.integers(0, 35 * 86_400, EVENTS)) * 1000
    ts = ts[burst]
    ts[rng.random(EVENTS) < 0.3] -= 1000
    ids = np.array([f"i{k}" for k in item], object)
    ids[rng.random(EVENTS) < 0.02] = STRANGER
    action = rng.choice([ACTION_CODE[a] for a in ("view", "click", "buy")], EVENTS).astype(np.uint8)
    again = np.flatnonzero(rng.random(EVENTS) < 0.02)
    for column in (user, ids, action, ts):
        column[again] = column[np.maximum(again - 1, 0)]
    users = np.array([f"u{u}" for u in user], object)
    return Events(users, ids, action, ts.astype(np.int64), np.full(EVENTS, np.nan, np.float32))


def with_a_bot(told: Events, clicks: int = 60) -> Events:
    """These events, and then a user who clicks every second at one item and any other in turn."""
    rng = np.random.default_rng(7)
    items = [f"i{5 if k % 2 else rng.integers(len(ITEMS))}" for k in range(clicks)]
    return Events(
        np.concatenate([told.user, np.array(["bot"] * clicks, object)]),
        np.concatenate([told.item, np.array(items, object)]),
        np.concatenate([told.action, np.full(clicks, ACTION_CODE["click"], np.uint8)]),
        np.concatenate([told.ts, told.ts.max() + 1000 * np.arange(1, clicks + 1)]),
        np.concatenate([told.value, np.full(clicks, np.nan, np.float32)]),
    )


def described() -> list[Person]:
    """Most users say who they are, and some what they like: an item, a category, or what nobody has."""
    likes = ([], ["i17"], ["golden", "i3"], ["no such thing"])
    return [Person(f"u{u}", {"side": "left" if u % 4 else "right"}, likes[u % 4]) for u in range(USERS) if u % 8]


@pytest.mark.parametrize(("seen", "most"), [("exclude", EVENTS), ("allow", EVENTS // 4)])
def test_same_lists(empty: Deployment, seen: Seen, most: int) -> None:
    """A worker makes the lists that an evaluation ranks: of a model that is released, and on the shadow topic of the
    fallback. Where what was met is shown again, the model knows of habits, exposure is bound as well, a bot counts
    nothing, and a view is a refusal, which moves its user away.
    """
    special = seen == "allow"
    exposure = ExposureConfig(popular=0.2, categories={"river": 0.1}) if special else ExposureConfig()
    variation = 0.3 if special else 0.0
    feedback, weights = FeedbackConfig(rate=0.3 if special else 0.0), {"view": -0.8 if special else 1.0}
    empty.environ |= {
        "EDDYLINE_TOPICS__PARTITIONS": "1",
        "EDDYLINE_RECOMMEND__EXACT": "true",
        "EDDYLINE_RECOMMEND__SHADOW": "true",
        "EDDYLINE_RECOMMEND__CANDIDATES": str(len(ITEMS)),
        "EDDYLINE_RANK__SEEN": seen,
        "EDDYLINE_RANK__EXPOSURE__POPULAR": str(exposure.popular),
        "EDDYLINE_RANK__FEEDBACK__RATE": str(feedback.rate),
        "EDDYLINE_INPUT__WEIGHTS__VIEW": str(weights["view"]),
        "EDDYLINE_TRENDS__VARIATION": str(variation),
        **{f"EDDYLINE_RANK__EXPOSURE__CATEGORIES__{name}": str(most) for name, most in exposure.categories.items()},
    }
    empty.settings = load(environ=empty.environ)
    deployment = empty.create(ITEMS)
    people = described()
    run(publish_people(deployment.settings.kafka, deployment.settings.topics.users, people))
    worker = deployment.worker()
    sent, catalog = events().take(slice(0, most)), Catalog.build({i.item: i for i in ITEMS}, 1)
    sent = with_a_bot(sent) if special else sent
    texts = TextEncoder(cache=deployment.settings.cache).encode(catalog.texts)
    model = small_model(sent, catalog, texts, seen)
    model.leanings = leanings_of(sent, People.of(people), catalog)
    assert model.leanings is not None
    if special:
        learned = np.array([1.1, 0.2, 0.3, 0.5, 0.6, -0.2, -0.3, 0.4, 0.1, 0.7, 0.8], np.float32)
        line = timeline(sent, catalog)
        model.habits = Habits.learned(line, len(line), catalog, learned)
    checkpoint.save(deployment.folder / "model", model, datetime(2026, 11, 25, tzinfo=UTC))
    assert deployment.cli("release", "announce", str(deployment.folder / "model"), "--name", "ours").code == 0
    until(lambda: worker.ready().status()["model"] == "ours@1", 60, "the release is served")
    assert worker.status()["described"] == len(people)

    live = run(one_by_one(deployment, sent))
    assert worker.status()["conflated"] == 0
    known = People.of(people)
    world = World(sent, catalog, {}, lambda: texts, exposure=exposure, variation=variation, people=known)
    world = replace(world, feedback=feedback, weights=weights)
    names = deployment.settings.topics
    for topic, other in ((names.recommendations, model), (names.shadow, None)):
        method = Served(world, Engine(catalog, texts, other, seen=seen, exposure=exposure), "offline")
        check_same(live[topic], offline(method, world, seen), catalog)
    assert worker.stop() == 0


def small_model(sent: Events, catalog: Catalog, texts: np.ndarray, seen: Seen) -> Recommender:
    """Trained on these events, and mixed so that every part says something: vectors, texts, counts, profiles, what
    users come back to, and the length of the window.
    """
    shape = ModelConfig(dim=16, layers=1)
    config = TrainConfig(model=shape, epochs=2, learning_rate=1e-2, refit=False, validation_events=50, seen=seen)
    trained = train(sent.take(np.argsort(sent.ts, kind="stable")), catalog, texts, config)
    repeat = 0.2 if seen == "allow" else 0.0
    mix = Mix(neural=0.9, text=0.5, online=0.8, popular=0.1, repeat=repeat, by_window=(0.5, 1.5, 1.0))
    model = Recommender(trained.config.model_copy(update={"mix": mix}))
    model.load_state_dict(trained.state_dict())
    return model.eval()


async def one_by_one(deployment: Deployment, sent: Events) -> dict[str, list[Recommendation]]:
    """Each event's lists, by topic; the next event is sent when they were read."""
    s = deployment.settings
    names = [s.topics.recommendations, s.topics.shadow]
    consumer, producer = AIOKafkaConsumer(**s.kafka.consumer()), AIOKafkaProducer(**s.kafka.producer())
    tps = await topics.topic_partitions(s.kafka, names)
    await consumer.start()
    await producer.start()
    try:
        consumer.assign(tps)
        await consumer.seek_to_end(*tps)
        found: dict[str, list[Recommendation]] = {name: [] for name in names}
        for i in range(len(sent)):
            user, topic = str(sent.user[i]), s.input.topics[ACTION_NAME[int(sent.action[i])]]
            body, ts = encode_event(user, str(sent.item[i]), int(sent.ts[i])), int(sent.ts[i])
            at = await producer.send_and_wait(topic, body, key=user.encode(), timestamp_ms=ts, headers=JSON_HEADERS)
            while any(len(lists) <= i for lists in found.values()):
                record = await asyncio.wait_for(consumer.getone(), 60)
                found[record.topic].append(messages.decode(record.value))
            for lists in found.values():
                assert (lists[i].source.topic, lists[i].source.offset) == (topic, at.offset)
        return found
    finally:
        await consumer.stop()
        await producer.stop()


def offline(method: Served, world: World, seen: Seen) -> list[np.ndarray]:
    """What each item scores for an event's user just after it, f32[N]: -inf where it may not be shown."""
    catalog, log = world.catalog, HistoryLog()
    line = timeline(world.events, catalog, world.weights, world.variation)
    assert world.variation == 0 or not line.fresh[-20:].any()
    scores: list[np.ndarray] = []
    for i in range(len(line)):
        user = int(line.users[i])
        log.add(user, *(int(c[i]) for c in (line.times, line.actions, line.items)), float(line.weights[i]))
        h = log.histories([user])
        rows = catalog.index_of(h.items)
        allowed = np.ones((1, len(catalog)), bool)
        if seen == "exclude":
            allowed = unseen(rows, h, catalog.seen32, len(catalog))
        method.learn(line, i + 1)
        said = method.scores(Asked(line.users[i : i + 1], line.times[i : i + 1], h, rows, allowed))
        scores.append(np.where(allowed, said, -np.inf)[0])
    return scores


def check_same(live: list[Recommendation], scores: list[np.ndarray], catalog: Catalog) -> None:
    """The lists have the best items by these scores, in their order, and as shares."""
    assert len(live) == len(scores)
    row = {item: k for k, item in enumerate(catalog.ids)}
    for found, score in zip(live, scores, strict=True):
        share = np.exp(score - score.max())
        share /= share.sum()
        best = np.argsort(-score, kind="stable")[: min(N, int(np.isfinite(score).sum()))]
        shown = [row[item.item] for item in found.items]
        assert len(set(shown)) == len(shown) == len(best), found.source
        np.testing.assert_allclose(score[shown], score[best], rtol=CLOSE, atol=CLOSE, err_msg=str(found.source))
        np.testing.assert_allclose([item.score for item in found.items], share[shown], rtol=CLOSE, atol=ROUNDED)
