"""What walks in: a Hugging Face folder or hub id, a GGUF file, LoRA adapters over either, a module in memory."""
