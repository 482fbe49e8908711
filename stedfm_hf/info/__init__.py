"""What is in image files and folders, and what every command would read: `stedfm info`."""
