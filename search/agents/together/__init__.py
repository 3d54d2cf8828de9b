"""The default agent: one step decides a whole candidate."""
