"""Which tunnels this node keeps: ``plan_mesh(view, me)``, pure. Equal facts give equal plans on every
node."""
