"""Which objects are in memory, and whose turn it is in each mailbox."""
