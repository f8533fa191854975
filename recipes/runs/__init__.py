"""What run folders say, read without torch: of a run that trains, ended, or was killed, by this vfm or another."""
