"""Every way into the cloud: the console and its JSON over HTTP, live pages, and the site link."""
