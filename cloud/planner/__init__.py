"""From prices, signals and a fleet to a plan for each site, and from meters and acks to what it delivered."""
