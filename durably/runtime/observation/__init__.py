"""What the machine tells about itself: log lines, failures as text."""
