"""The log: transitions, the open batch, group commit, and the gates that hold back what is not durable yet."""
