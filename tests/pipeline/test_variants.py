"""Two variants and a shadow on a running worker: each user is answered by one, and what came of it is compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model import checkpoint
from model.config import ModelConfig
from model.recommender import Recommender
from stream.lists.variants import Split
from stream.messages import Recommendation, decode
from tests.pipeline.harness import Deployment, Worker, some_events, until
from tests.pipeline.test_release import NOW, save_model

USERS = 24
SETTINGS = """
experiment = "autumn"

[variants.a]
share = 0.5

[variants.b]
model = "challenger"
[variants.b.rank.exposure]
categories = { river = 0.0 }

[variants.c]
shadow = true
model = "fallback"
mix.online = 0.0
"""


def by_user(deployment: Deployment, topic: str) -> dict[str, list[Recommendation]]:
    found: dict[str, list[Recommendation]] = {}
    for record in deployment.records(topic):
        event = decode(record.value)
        found.setdefault(event.user, []).append(event)
    return found


def test_each_user_is_answered_by_one_variant_and_a_shadow_is_written_beside_it(deployment: Deployment) -> None:
    file, topics = deployment.folder / "eddyline.toml", deployment.settings.topics
    file.write_text(SETTINGS)
    deployment.environ["EDDYLINE_CONFIG"] = str(file)
    current, challenger = save_model(deployment.folder / "current"), deployment.folder / "challenger"
    checkpoint.save(challenger, Recommender(ModelConfig(dim=24, layers=1, items=1)).eval(), NOW)
    assert deployment.cli("release", "announce", str(current), "--name", "ours").code == 0
    worker = deployment.worker().ready()
    until(lambda: "a variant names the model challenger" in worker.log.read_text(), 30, "it is told what is missing")
    named = {"a": "ours@1", "b": "ours@1", "c": "fallback"}
    until(lambda: worker.status()["variants"] == named, 30, "the current release stands in for what is missing")
    done = deployment.cli("release", "announce", str(challenger), "--name", "new", "--alias", "challenger")
    assert done.code == 0 and "new@2 announced" in done.output
    until(lambda: worker.status()["variants"]["b"] == "new@2", 30, "the release is served beside the current one")
    assert worker.status()["model"] == "ours@1"

    deployment.send(some_events(120, users=USERS))
    deployment.settled()
    lists, shadows = by_user(deployment, topics.recommendations), by_user(deployment, topics.shadow)
    assert lists.keys() == shadows.keys() and len(lists) > USERS / 2
    split = Split.of("autumn", {"a": 0.5, "b": 0.5})
    for user, mine in lists.items():
        variant = split.names[split.numbers([user])[0]]
        model = {"a": "ours@1", "b": "new@2"}[variant]
        assert {(event.variant, event.model) for event in mine} == {(variant, model)}, user
        rivers = {f"i{n}" for n in range(0, 20, 5)}
        assert variant == "a" or not rivers & {item.item for event in mine for item in event.items}, user
        assert [event.id for event in shadows[user]] == [event.id for event in mine]
        beside = shadows[user]
        assert {(event.variant, event.model) for event in beside} == {("c", "fallback")}
        assert not any(item.reasons for event in beside for item in event.items)
        assert any(item.reasons for event in mine for item in event.items)
    assert {event.variant for mine in lists.values() for event in mine} == {"a", "b"}

    check_compared(deployment, lists)
    check_withdrawn(deployment, worker)
    assert worker.stop() == 0 and "Traceback" not in worker.log.read_text()


def check_compared(deployment: Deployment, lists: dict[str, list[Recommendation]]) -> None:
    """Feedback on the last lists: all are shown, and those of b are clicked."""
    records = []
    for user, mine in lists.items():
        last = mine[-1]
        for outcome in ("shown", *(["clicked"] if last.variant == "b" else [])):
            body = {"user": user, "recommendation": last.id, "item": last.items[0].item, "outcome": outcome, "ts": 1}
            records.append((user.encode(), json.dumps(body).encode()))
    records.append((b"u1", b'{"user": "u1", "item": "i1", "outcome": "clicked", "ts": 1}'))
    deployment.send_raw_to(deployment.settings.topics.feedback, 0, records)
    told = json.loads(deployment.cli("evaluate", "topics", "--protocol", "variants", "--json").output)
    assert told["variants"]["a"]["ctr"][0] == 0 and told["variants"]["b"]["ctr"] == [1, 1, 1]
    assert told["variants"]["b"]["over"]["ctr"] == [1, 1, 1] and told["sample_ratio_p"] > 1e-3
    assert (told["unnamed"], told["unknown"], told["crossed"]) == (1, 0, 0)
    users = {variant: sum(mine[0].variant == variant for mine in lists.values()) for variant in "ab"}
    assert {name: of["users"] for name, of in told["variants"].items()} == users
    assert {(s["shadow"], s["emitted"]) for s in told["shadows"]} == {("c", "a"), ("c", "b")}
    told = json.loads(deployment.cli("evaluate", "topics", "--protocol", "off-policy", "--json").output)
    assert told["lists"] == len(lists) and told["unreadable"] == 0
    assert told["policies"]["logged"]["ips"][0] == pytest.approx(users["b"] / len(lists))  # one of b's items is clicked


def check_withdrawn(deployment: Deployment, worker: Worker) -> None:
    """A release that is taken back leaves the current one to its variant."""
    shown = deployment.cli("release", "show")
    assert "ours@1" in shown.output and "as challenger: new@2" in shown.output
    assert deployment.cli("release", "withdraw", "--alias", "challenger").code == 0
    until(lambda: worker.status()["variants"]["b"] == "ours@1", 30, "the current release stands in again")


def test_variants_that_cannot_be_start_no_worker(deployment: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "eddyline.toml"
    file.write_text("[variants.a]\nshare = 0.5\n[variants.b]\nshare = 0.4\n")
    done = deployment.cli("worker", EDDYLINE_CONFIG=str(file))
    assert done.code == 3 and "take out one of them, as that of b" in done.output
