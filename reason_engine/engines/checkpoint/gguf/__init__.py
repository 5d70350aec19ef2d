"""GGUF files, the format of llama.cpp: read as checkpoints in Hugging Face's form; nothing in them is run."""
