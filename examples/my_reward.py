"""A reward of one's own: agreement with the dense network, less a price on parameters."""

from prunetune.rewards import Evaluation, Reward


class LeanAgreement(Reward):
    """Stay close to the dense network with few parameters."""

    name = "lean-agreement"
    measures = ("agreement",)
    costs = ("params",)

    def __init__(self, price: float = 0.1) -> None:
        self.price = price

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        """Higher is better."""
        return -evaluation.measures["agreement"] - self.price * evaluation.costs["params"]
