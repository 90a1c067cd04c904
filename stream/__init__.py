"""Everything that touches Kafka: events in, windows and trends kept, recommendations out."""
