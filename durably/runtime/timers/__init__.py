"""What is due: timers, their heap, and messages that are scheduled for later."""
