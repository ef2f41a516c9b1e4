"""Workers as the study's process sees them: started, probed, told what to train; no TensorFlow."""
