"""The program: configuration, the agent's composition, the command line. The only floor that knows adapters
by name."""
