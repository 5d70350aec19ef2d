"""What strategies that vote share: the ballot, when it is settled, and which answers are the same by their kind."""
