"""Settings tried one after the other (optuna), and judged on held-out events.

Not training, which is handed in. What is tried follows from what was reached before (tree-structured Parzen
estimators, Bergstra et al. 2011), and a trial that is behind the median of the others at an epoch is stopped there. The
best of many is the best by luck too: what it reaches on the held-out events is no figure to expect of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.config import TrainConfig, Value
from model.recommender import Recommender

if TYPE_CHECKING:
    import optuna

Progress = Callable[[dict[str, Any]], None]
Fit = Callable[[TrainConfig, Progress], Recommender]
"""Trains with these settings, reporting every epoch; `metrics` are those of `model.train`."""


class SearchError(RuntimeError):
    """Nothing can be searched; the message says what to do."""


@dataclass(frozen=True)
class Trial:
    """What was tried: settings by name, the epochs it took, and NDCG@10; None where it was stopped before."""

    settings: dict[str, Value]
    epochs: int
    ndcg: float | None


@dataclass(frozen=True)
class Found:
    """The settings with the best NDCG@10, and all trials in order."""

    best: dict[str, Value]
    trials: list[Trial]


def search(
    config: TrainConfig,
    ranges: Mapping[str, Sequence[Value]],
    trials: int,
    fit: Fit,
    path: Path,
    key: str,
    told: Callable[[int, Trial], None] | None = None,
) -> Found:
    """Tries settings until the study has so many trials, the present settings first. ranges: see `SearchConfig`.

    path: a file for the study, which goes on where it was. key: names what is searched, beside settings and ranges: in
    one file a study of other data is another. told(n, trial) is called after each. Raises SearchError.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as e:
        raise SearchError("--search needs its library: pip install 'eddyline[search]'") from e
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    name = json.dumps([key, config.model_dump(), dict(ranges)], sort_keys=True)
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True, direction="maximize")
    done = len(_ended(study))
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + done)  # else a study that goes on draws the same
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    present = {n: value_of(config, n) for n in ranges}
    study.enqueue_trial({n: v for n, v in present.items() if _within(v, ranges[n])}, skip_if_exists=True)

    def objective(trial: optuna.Trial) -> float:
        def tell(at: dict[str, Any]) -> None:
            trial.report(at["ndcg"], at["epoch"])
            if trial.should_prune():
                raise optuna.TrialPruned

        chosen = {n: suggested(trial, n, values) for n, values in ranges.items()}
        model = fit(changed(config, chosen).model_copy(update={"refit": False}), tell)
        return model.metrics["validation"]["ndcg@10"]  # type: ignore[index]

    def after(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if told is not None:
            told(len(_ended(study)), _trial(trial))

    study.optimize(objective, n_trials=max(0, trials - done), callbacks=[after])
    tried = [_trial(t) for t in _ended(study)]
    whole = [t for t in tried if t.ndcg is not None]
    if not whole:
        raise SearchError("no trial came to its end: search longer")
    return Found(max(whole, key=lambda t: t.ndcg or 0.0).settings, tried)


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that came to an end; one that was killed has none."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _trial(trial: optuna.trial.FrozenTrial) -> Trial:
    whole = trial.state.name == "COMPLETE"
    return Trial(dict(trial.params), max(trial.intermediate_values, default=0), trial.value if whole else None)


def _numeric(values: Sequence[Value]) -> bool:
    return len(values) == 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _within(value: Value, values: Sequence[Value]) -> bool:
    return values[0] <= value <= values[1] if _numeric(values) else value in values  # type: ignore[operator]


def suggested(trial: optuna.Trial, name: str, values: Sequence[Value]) -> Value:
    """A value of the range: two numbers are its ends (in logarithms where they are ten times apart); else choices."""
    if not _numeric(values):
        return trial.suggest_categorical(name, values)  # type: ignore[return-value]
    low, high = values
    wide = low > 0 and high >= 10 * low  # type: ignore[operator]
    whole = isinstance(low, int) and isinstance(high, int)
    return (trial.suggest_int if whole else trial.suggest_float)(name, low, high, log=wide)  # type: ignore[arg-type]


def value_of(config: TrainConfig, name: str) -> Value:
    """A setting by its name, as `dropout` or `model.dim`."""
    *within, last = name.split(".")
    return getattr(config.model if within else config, last)


def changed(config: TrainConfig, settings: Mapping[str, Value]) -> TrainConfig:
    """These settings in place of its own, checked as if they had been written."""
    values = config.model_dump()
    for name, value in settings.items():
        *within, last = name.split(".")
        (values["model"] if within else values)[last] = value
    return TrainConfig.model_validate(values)


def as_toml(settings: Mapping[str, Value]) -> str:
    """The sections [train] and [train.model] that say so."""
    sections: dict[str, list[str]] = {"train": [], "train.model": []}
    for name, value in settings.items():
        *within, last = name.split(".")
        sections["train.model" if within else "train"].append(f"{last} = {json.dumps(value)}")
    return "\n\n".join("\n".join([f"[{s}]", *lines]) for s, lines in sections.items() if lines)
