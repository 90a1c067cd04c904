"""Step 2, the window table: what a batch does to each user's window, and the columns that windows are kept in."""
