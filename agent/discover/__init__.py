"""Finding miners on the site's network. Nothing found is ever claimed here: a person imports what they want.

targets (which hosts) --> sweep (gently) of look (who is it) --> standing (against the inventory) --> report
"""
