"""The agents. `learner` holds Algorithm 1's phases, `loop` runs them; each agent is a choice among them."""
