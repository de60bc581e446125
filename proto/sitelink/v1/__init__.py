"""Version 1 of the wire messages; the modules beside this file are generated from the .proto files."""
