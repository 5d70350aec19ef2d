"""Methods that learn from given rows: fine-tuning, preferences, distillation; and the loop that they share."""
