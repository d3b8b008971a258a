"""An embedding server for all-MiniLM-L6-v2: numpy and tokenizers, and nothing that takes long to start."""
