"""The study rnn_capacity: recurrent networks of a budget on a task, searched over their hyperparameters."""
