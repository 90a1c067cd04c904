"""`eddyline catalog`, `users`, `send`, `request`, `replay`: what goes into Kafka."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.console.common import Bootstrap, Json, err, out, progress, run, settings

catalog = typer.Typer(help="The catalogue of items.", no_args_is_help=True)
users = typer.Typer(help="What is known of users beside what they did.", no_args_is_help=True)

Data = Annotated[str, typer.Argument(metavar="DATA", help="movielens-100k, complete-journey, or a folder.")]


@catalog.command()
def publish(data: Data, kafka: Bootstrap = None) -> None:
    """Publish a data set's items. Example: eddyline catalog publish movielens-100k"""
    from model.datasets import load
    from stream.replay import publish_items

    s = settings(kafka)
    found = load(data, s.cache)
    err.print(found.licence, highlight=False, markup=False)
    n = run(publish_items(s.kafka, s.topics.catalog, found.items.values()))
    out.print(f"{n} items published to {s.topics.catalog}")


@users.command("publish")
def publish_users(data: Data, kafka: Bootstrap = None) -> None:
    """Publish the attributes and interests of a data set's users. Example: eddyline users publish ./shop"""
    from model.datasets import load
    from stream.errors import ConfigError
    from stream.replay import publish_people

    s = settings(kafka)
    found = load(data, s.cache)
    if not found.people:
        raise ConfigError(f"{data} describes no users", "write users.csv: a column user, and one for each attribute")
    err.print(found.licence, highlight=False, markup=False)
    n = run(publish_people(s.kafka, s.topics.users, found.people.values()))
    out.print(f"{n} users published to {s.topics.users}")


@catalog.command()
def withdraw(items: Annotated[list[str], typer.Argument(help="Item ids.")], kafka: Bootstrap = None) -> None:
    """Withdraw items: they are recommended no more. Example: eddyline catalog withdraw i7 i9"""
    from stream.replay import withdraw_items

    s = settings(kafka)
    out.print(f"{run(withdraw_items(s.kafka, s.topics.catalog, items))} items withdrawn")


def send(
    action: Annotated[str, typer.Argument(help="view, click, buy, or another action with a topic.")],
    user: Annotated[str, typer.Argument(help="The user.")],
    item: Annotated[str, typer.Argument(help="The item.")],
    kafka: Bootstrap = None,
) -> None:
    """Send one event by hand. Example: eddyline send click u42 i7"""
    import time

    from stream.replay import send_event

    s = settings(kafka)
    topic, partition, offset = run(send_event(s, action, user, item, int(time.time() * 1000)))
    out.print(f"{topic}/{partition} offset {offset}")


def request(
    user: Annotated[str, typer.Argument(help="The user.")],
    kafka: Bootstrap = None,
    n: Annotated[int | None, typer.Option("-n", help="Items; default: recommend.n of the worker.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Of this category only; may be repeated.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Not this item; may be repeated.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Of these items only; may be repeated.")] = None,
    min_price: Annotated[float | None, typer.Option(help="What an item costs at least.")] = None,
    max_price: Annotated[float | None, typer.Option(help="What an item costs at most.")] = None,
    item: Annotated[str | None, typer.Option(help="The item whose page it is, as if just viewed.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 10.0,
    as_json: Json = False,
) -> None:
    """Ask for a list, as a page does, and print the answer. Example: eddyline request u42 -n 5 --category film"""
    from stream import messages
    from stream.asking import ask
    from stream.tail import show

    price = {name: bound for name, bound in (("min", min_price), ("max", max_price)) if bound is not None}
    wanted = {"categories": category, "exclude": exclude, "only": only, "price": price, "item": item}
    context = {name: value for name, value in wanted.items() if value}
    answer = run(ask(settings(kafka), user, n, context, timeout))
    if as_json:
        out.print_json(messages.encode(answer).decode())
    else:
        show(answer, out)


def replay(
    data: Data,
    kafka: Bootstrap = None,
    speed: Annotated[str, typer.Option(help="60x: a minute of history in a second; max: as fast as it goes.")] = "max",
    begin: Annotated[float, typer.Option(help="Begin after this share of the events.", min=0, max=1)] = 0.0,
    end: Annotated[float, typer.Option(help="End after this share of the events.", min=0, max=1)] = 1.0,
) -> None:
    """Publish a data set in time order into the input topics. Example: eddyline replay movielens-100k --end 0.8"""
    import time

    from model.datasets import load
    from stream.replay import publish as publish_events

    s, pace = settings(kafka), _speed(speed)
    found = load(data, s.cache)
    for note in (found.licence, *found.notes):
        err.print(note, highlight=False, markup=False)
    n = len(found.events)
    part = found.events.take(slice(int(begin * n), int(end * n)))
    began = time.monotonic()
    with progress("replaying") as tell:
        sent = run(publish_events(s.kafka, s.input.topics, part, pace, tell))
    took = max(time.monotonic() - began, 1e-3)
    out.print(f"{sent} events published in {took:.1f} s ({sent / took:,.0f}/s)")


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise typer.BadParameter(f"{text!r} is no speed; write 60x, or max", param_hint="--speed")
    return speed
