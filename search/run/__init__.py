"""What a run keeps on disk: folder, record, histories, checkpoints, locks, summary."""
