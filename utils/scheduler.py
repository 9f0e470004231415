"""The starter kit's learning rate, as a function of the epoch."""


class exponential_decay:
    """Multiply the learning rate by `decay_rate` after every `decay_epochs` epochs."""

    def __init__(self, initial_learning_rate=0.001, decay_rate=0.5, decay_epochs=100):
        self.initial_learning_rate = initial_learning_rate
        self.decay_rate = decay_rate
        self.decay_epochs = decay_epochs

    def __call__(self, epoch):
        """Epoch, counted from 0 -> learning rate."""
        decays = epoch // self.decay_epochs
        return self.initial_learning_rate * self.decay_rate**decays
