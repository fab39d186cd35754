"""Which rows FedOBP's page has, and what the authors' stored runs say of them."""

# Tables of the authors' stored runs: 100 agents, 400 rounds, one seed; the best of four evaluations on test data.
PUBLISHED = {
    "fedobp_fashion_mnist": {
        "FedAvg": "88.06 / 96.97", "FedPer": "96.57 / 96.51", "FedOBP, q = .9999": "96.93 / 96.82 (q = .99992)",
        "local": "95.06 / 95.03", "FedRep": "96.15 / 96.20", "LG-FedAvg": "95.36 / 95.38", "APFL": "93.25 / 97.11",
        "FedOBP, q = .997": "96.35, 96.41 (q = .995, .998, 200 rounds)", "FedOBP, classifier only, q = .9908": "97.05",
        "FedOBP, running score": "96.81 (q = .999705)", "FedOBP, Fisher score": "87.21 (q = .995, 200 rounds)",
        "FedOBP, gradient score": "86.70 (q = .995, 200 rounds)",
    },
    "fedobp_fashion_mnist_dir05": {
        "FedAvg": "90.75 / 93.57", "FedPer": "91.72 / 91.53", "FedOBP, q = .9992": "92.63 / 93.01",
    },
    "fedobp_cifar100": {
        "FedAvg": "26.76 / 49.16", "FedPer": "42.88 / 42.86", "FedOBP, q = .99505": "46.08 / 46.79",
    },
}  # fmt: skip
ROWS = {
    "fedobp_fashion_mnist": (
        "FedAvg", "FedPer", "FedOBP, q = .997", "FedOBP, q = .9999", "local", "FedRep", "LG-FedAvg", "APFL", "Ditto",
        "FedSelect", "FedOBP, score (c-g)^2", "FedOBP, classifier only, q = .9908", "FedOBP, running score",
        "FedOBP, mask in aggregation", "FedOBP, scored on the agent", "FedOBP, from the first model",
        "FedOBP, Fisher score", "FedOBP, gradient score",
    ),
    "fedobp_fashion_mnist_dir05": (
        "FedAvg", "FedPer", "FedOBP, q = .997", "FedOBP, q = .9992", "FedOBP, rule: scores",
        "FedOBP, rule: scores, 10 times",
    ),
    "fedobp_cifar100": (
        "FedAvg", "FedPer", "FedOBP, q = .99505", "FedOBP, q = .9", "FedOBP, q = .99", "FedOBP, q = .997",
        "FedOBP, rule: scores", "FedOBP, rule: scores, 10 times",
    ),
    "fedobp_parity": ("FedAvg", "local", "FedPer", "FedOBP, q = .9999", "FedOBP, q = .99"),
    "fedobp_quantile": (
        "q = .9", "q = .99", "q = .997", "q = .999", "q = .9999", "q = .99992", "rule: held-out data", "rule: scores",
        "rule: scores, 10 times", "rule: bytes",
    ),
}  # fmt: skip
RULES = {"20": "rule: scores", "10": "rule: scores, 10 times"}  # by `times`
# Where q is given and where a rule finds it: the rows of one experiment, which q the authors chose there, and how its
# rows are called before "rule: …".
CHOICES = {
    "Fashion-MNIST, Dirichlet 0.1": (
        "fedobp_quantile",
        ("q = .9", "q = .99", "q = .997", "q = .999", "q = .9999", "q = .99992"), "q = .99992", "",
    ),
    "Fashion-MNIST, Dirichlet 0.5": (
        "fedobp_fashion_mnist_dir05",
        ("FedOBP, q = .997", "FedOBP, q = .9992"), "FedOBP, q = .9992", "FedOBP, ",
    ),
    "CIFAR-100, Dirichlet 0.1": (
        "fedobp_cifar100",
        ("FedOBP, q = .9", "FedOBP, q = .99", "FedOBP, q = .99505", "FedOBP, q = .997"), "FedOBP, q = .99505",
        "FedOBP, ",
    ),
}  # fmt: skip
