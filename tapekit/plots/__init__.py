"""Pictures of traces, checks and logs: plain data in, matplotlib Axes out."""
