"""Part of prunetune."""
