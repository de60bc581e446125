"""Miners that speak the CGMiner API on TCP 4028, in every dialect of it that a site has."""
