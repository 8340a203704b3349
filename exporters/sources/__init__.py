"""What walks in at the door. Today: a Hugging Face folder (or a hub id, where there is a network)."""
