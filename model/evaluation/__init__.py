"""Evaluation: protocols (what is asked, and what is known before it), methods (who answers), tables (how well)."""
