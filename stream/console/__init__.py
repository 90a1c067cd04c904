"""The `eddyline` command: one command, one function elsewhere. Nothing is decided here but how things are said."""
