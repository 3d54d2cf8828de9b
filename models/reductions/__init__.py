"""Reductions: each owns one kind of decision and applies it to a network physically."""
