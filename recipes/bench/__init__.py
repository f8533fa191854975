"""Which recipe suits these recordings? The same encoder, budget and evaluation for each, over several seeds."""
