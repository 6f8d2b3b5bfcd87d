"""What proves an alarm: the clip, the scores in it, the picture, the nearest normal sound, and the replay."""
