"""From a plan to records: the training protocol and the executors that run it."""
