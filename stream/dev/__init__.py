"""What development needs beside the pipeline: a local Kafka broker, and the demo on it. Never deployed."""
