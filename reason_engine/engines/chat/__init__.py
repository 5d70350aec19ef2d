"""How one checkpoint speaks: tokenizer, chat template, reasoning and tool-call parsing. Never imports torch."""
