"""A subscriber for people: prints recommendations as they come. Any Kafka client can do the same."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape

from stream import messages
from stream.kafka.clients import consumer
from stream.kafka.topics import topic_partitions
from stream.settings import Settings


async def follow(settings: Settings, beginning: bool, count: int | None, out: Console, as_json: bool) -> None:
    """Print lists from now on, or from the beginning; for ever, or `count` of them."""
    topic = settings.topics.recommendations
    tps = await topic_partitions(settings.kafka, [topic])
    async with consumer(settings.kafka) as client:
        client.assign(tps)
        await (client.seek_to_beginning if beginning else client.seek_to_end)(*tps)
        left = count
        async for record in client:
            assert record.value is not None  # lists have no tombstones
            if as_json:
                out.print(record.value.decode(), markup=False, highlight=False)
            else:
                show(messages.decode(record.value), out)
            if left is not None:
                left -= 1
                if left <= 0:
                    return


def show(event: messages.Recommendation, out: Console, titles: Mapping[str, str] | None = None) -> None:
    """One list, an item a line, with why it is there; by title, where titles are known."""
    titles = titles or {}
    mixed = f"short {event.interest.short:.2f}, long {event.interest.long:.2f}"
    out.print(f"[bold]{escape(event.user)}[/]  {event.model}  {mixed}  {event.id[:8]}")
    for item in event.items:
        why = ", ".join(f"{_why(reason, titles)} {reason.share:.0%}" for reason in item.reasons)
        out.print(
            f"  {item.rank:2}. {titles.get(item.item, item.item):<40} {item.score:8.4f}  {why}",
            highlight=False,
            markup=False,
        )


def _why(reason: messages.Reason, titles: Mapping[str, str]) -> str:
    if isinstance(reason, messages.TasteReason):
        return f"taste {reason.taste}"
    if isinstance(reason, messages.PopularReason):
        return "popular"
    return f"{reason.action} {titles.get(reason.item, reason.item)}"
