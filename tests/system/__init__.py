"""The whole system as a visitor meets it: a real browser on the live page, over a real broker and worker."""
