"""What becomes of every order on every firmware under every fault, played against the simulator's real protocols."""
