"""The demo's world of moving shapes: scenes, clips, questions, wording and the held-out set."""
