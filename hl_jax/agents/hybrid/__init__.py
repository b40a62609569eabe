"""Algorithm 1, and its Direct-RL part alone (`dqn`)."""
