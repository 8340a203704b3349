"""Conversations in a terminal. The standard library alone: its `readline` gives line editing and history."""
