"""Reading of input topics: the consumer thread, its batches, and how it joins a group."""
