"""Ways to reach another host: give me the streams of this argv over there."""
