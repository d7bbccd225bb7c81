"""What a tower learns without labels: a module for each task, with one interface, `task.Task`."""
