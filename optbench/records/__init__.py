"""What a store's records stand on: trials written out, trained again, merged, exported, imported."""
