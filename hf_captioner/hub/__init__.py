"""A checkpoint's files, from and to the Hugging Face Hub."""
