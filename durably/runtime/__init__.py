"""The machine: it makes what has happened, in `durably.storage`, answer what may be asked, in `durably.actors`."""
