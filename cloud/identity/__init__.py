"""Who may come in: accounts and sessions of people, certificates of agents."""
