#!/bin/sh
# Trains a model, and announces it unless it is worse than the one that is served by more than 5%.
# DATA: a data set; MODELS: where every worker reads models. Interrupted, the next run goes on with the training.
# The newest 5% of the events are not learned: both models are asked for them. Nothing is deleted: a rollback needs it.
set -eu
eddyline train "$DATA" --out "$MODELS/next" --end 0.95
to="$MODELS/$(date -u +%Y%m%dT%H%M%SZ)"
mv "$MODELS/next" "$to"
eddyline release announce "$to" --gate "$DATA"
