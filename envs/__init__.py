"""The Gymnasium environments in which candidates are decided: budgets, costs, observations."""
