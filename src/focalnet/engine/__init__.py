"""The engine: trains and evaluates any task, and keeps all of it in a run folder."""
