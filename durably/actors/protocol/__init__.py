"""What a handler and the machine say to each other: commands, the operations behind them, the port in between."""
