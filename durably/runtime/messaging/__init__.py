"""A message on its way to a mailbox, an answer on its way to the invocation that asked."""
