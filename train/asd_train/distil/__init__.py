"""A small encoder of our own: trained on mixtures that are known because we made them, with a teacher beside.

`recipe` is the configuration, `stems` the sounds that are mixed (recordings, `faults`, `everyday`), `mixtures` the
batches, `student` the network, `learner` its losses, `calibration` its probabilities, `run` all of it in order.
"""
