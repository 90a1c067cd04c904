"""`eddyline replay`: an archive or topics into the input topics, in time order, without a gap or a repeat."""
