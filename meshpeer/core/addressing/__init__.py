"""Who has which overlay address and which name: rules that give one answer on every node, whatever it heard
first."""
