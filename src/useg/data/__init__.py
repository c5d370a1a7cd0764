"""What is learned from: files to samples."""
