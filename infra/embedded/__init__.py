"""The embedded stack: a broker, Redis, a media folder and Ray on one machine."""
