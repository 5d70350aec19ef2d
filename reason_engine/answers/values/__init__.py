"""Values of each kind: numbers, expressions, choices, words, programs and JSON, each in one spelling."""
