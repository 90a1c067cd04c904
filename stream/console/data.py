"""`eddyline catalog`, `users`, `send`, `request`: what goes into Kafka."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.console.common import Bootstrap, Json, err, out, run, settings

catalog = typer.Typer(help="The catalogue of items.", no_args_is_help=True)
users = typer.Typer(help="What is known of users beside what they did.", no_args_is_help=True)

Data = Annotated[str, typer.Argument(metavar="DATA", help="movielens-100k, complete-journey, or a folder.")]


@catalog.command()
def publish(data: Data, kafka: Bootstrap = None) -> None:
    """Publish a data set's items. Example: eddyline catalog publish movielens-100k"""
    from model.datasets import load
    from stream.publishing import publish_items

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
    from stream.publishing import publish_people

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
    from stream.publishing import withdraw_items

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

    from stream.publishing import send_event

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
