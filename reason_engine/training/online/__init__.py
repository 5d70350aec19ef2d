"""Methods that learn from their own samples: policies, rollouts, rewards and the loop that they share."""
