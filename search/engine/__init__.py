"""What runs searches: preparing, the trial under Tune, finalists, deliveries, progress."""
