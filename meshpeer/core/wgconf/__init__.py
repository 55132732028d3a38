"""What this node's WireGuard interface should hold, what it holds, and the smallest steps from one to the other."""
