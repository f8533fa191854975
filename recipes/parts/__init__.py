"""What methods share: masks, momentum teacher, prototypes, heads, centre, decoder, losses, schedules, other ranks."""
