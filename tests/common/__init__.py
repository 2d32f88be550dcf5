"""What tests of more than one kind use: waiting, processes, what is required, an agent's socket."""
