"""What people and programs ask about invocations and objects: lists, journals, and why something waits. Reads only."""
