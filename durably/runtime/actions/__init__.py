"""Side effects: the actions of `ctx.run`, which belong to the process and outlive attempts."""
