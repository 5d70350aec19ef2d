"""Where measurements become settings: `calibrate` fits the policy of `auto` to a model."""
