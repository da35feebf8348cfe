"""The grader: runs notebooks behind a wall and scores them by a referee outside it."""
