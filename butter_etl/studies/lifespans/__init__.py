"""The study nn_lifespans: random image networks, measured every half epoch of their whole lives."""
