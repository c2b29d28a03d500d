"""What an agent is told through its client's own hooks: in which form, and in which words."""
