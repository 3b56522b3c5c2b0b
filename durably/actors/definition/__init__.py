"""A class of actors, from what it says about itself to what runs: shape when it is defined, types when it is bound."""
