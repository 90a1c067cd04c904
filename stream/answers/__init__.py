"""Who is owed a list, and when it is due: progress, silences, and what may be committed for it."""
