"""The challenge's recordings from Zenodo: records, resumable and verified downloads, checks of what lies on disk."""
