"""Parameter-efficient fine-tuning: LoRA and its kin through PEFT, and bottleneck adapters."""
