"""The study rnn_capacity: recurrent networks, and the searches for what trains them best."""
