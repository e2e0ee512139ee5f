"""Jobs outside the event path: files, replay, simulation, archive, training, batch."""
