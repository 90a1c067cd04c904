"""How eddyline speaks to Kafka: clients, topics, the record-batch transport, changelogs. It knows no events."""
