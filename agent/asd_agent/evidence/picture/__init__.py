"""The picture of an alarm: spectrogram with the deciding band and time, scores, nearest normal sound."""
