"""Who agreed to a change, when nothing may change, and the record that answers for each change."""
