"""What this node's WireGuard interface should hold, what it holds, and the steps from one to the other."""
