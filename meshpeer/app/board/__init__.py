"""What the dashboard shows, as rows of tables: ``build`` makes them of the documents of the control API,
``place`` says where on the map they stand, ``story`` tells what changed, ``board`` looks at the agent."""
