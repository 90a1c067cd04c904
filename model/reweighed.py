"""A model weighed otherwise, beside itself: vectors and weights are shared, only what mixes them differs.

For variants that are served at once. Not for what is in the vectors themselves: the weight of the texts beside a
trained model (`Mix.text`) makes them longer, so it belongs to a model's own mix.
"""

from __future__ import annotations

from copy import copy

from model.baselines import Fallback, UserModel
from model.blended import Blended
from model.mix import Mix
from model.recommender import Recommender


def reweighed(model: UserModel | None, mix: Mix) -> tuple[UserModel | None, Mix]:
    """The model (None is the fallback) and its mix, with what is set in `mix` in place of its own. `alpha` is the
    fallback's weight of the window, and that of a model whose fusion is alpha; other fusions weigh for themselves.
    """
    set_here = {name: getattr(mix, name) for name in mix.model_fields_set}
    own = model.mix if model is not None else Mix()
    if isinstance(model, Recommender) and model.config.fusion == "alpha" and "alpha" in set_here:
        model, config = copy(model), model.config
        model.config = config.model_copy(update={"alpha": mix.alpha})
    return model, own.model_copy(update=set_here)


def sharing(like: UserModel, model: UserModel | None, mix: Mix) -> UserModel:
    """`like`, which has seen the items of a catalogue, as `model` (the same but for its weights, None is the fallback)
    under this mix.
    """
    made = copy(like)
    if isinstance(made, Blended) and model is not None:
        made.model = model
        return made
    if isinstance(made, Fallback):
        made.mix = mix
    return model or made
