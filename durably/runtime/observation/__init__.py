"""What the machine tells about itself: events, and log lines made of them."""
