"""Nearest vectors by inner product. Ids and arrays only: nothing here knows a model, an item or Kafka."""
